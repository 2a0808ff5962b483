// SPDX-License-Identifier: Apache-2.0
//
// Server.swift: listening sockets, a task for each connection they accept, and an orderly end of both.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A server of a loop: it listens on some addresses, and runs a task or a handler for each connection.
///
/// Start and wait on the loop's thread; the other members are for any thread. A loop that is closed ends its servers:
/// their waits throw `.closed`. Source: asyncio's `AbstractServer`.
public final class Server: Sendable {
    /// Serves one connection, which is closed when it returns. What it throws is reported to the loop's
    /// `onUnhandledError`, unless it is a cancel or a close on this side.
    public typealias Body = @Sendable (Connection) async throws -> Void

    /// The loop it belongs to.
    public let loop: any Loop
    /// Tasks of a loop that is closed under them end elsewhere.
    private let state: Lock<State>

    private struct State {
        var addresses: [SocketAddress] = []
        var isServing = false
        var isClosed = false
        /// Whether somebody is in ``serve(gracePeriod:)``.
        var isAwaited = false
        var sockets: [Place] = []
        var listeners: [Listener] = []
        var clients: [ObjectIdentifier: Client] = [:]
        /// Those who wait for the end of the last connection.
        var waits: [ObjectIdentifier: EndOfServer] = [:]
        var hasEnded: Bool { isClosed && clients.isEmpty }
    }

    private struct Client {
        let connection: Connection
        /// `nil` if a handler serves it.
        let task: Task<Void, any Error>?
    }

    /// A bound socket in an array, which takes copyable things only.
    private final class Place {
        var socket: BoundSocket
        init(_ socket: consuming BoundSocket) { self.socket = consume socket }
    }

    /// Binds to all of `endpoints`; an endpoint that is named twice counts once. Nothing listens before ``start(_:)``.
    /// - Throws: `.io` with the address that cannot be had. One that this machine does not have (`EADDRNOTAVAIL`), or
    ///   has no such family of, is passed over as long as another one can be had. On an error nothing stays bound.
    public init(
        on loop: any Loop, endpoints: [SocketAddress], options: ListenOptions = ListenOptions()
    ) throws(LoopError) {
        self.loop = loop
        var state = State()
        var unavailable: LoopError?
        var seen: Set<SocketAddress> = []
        for endpoint in endpoints where seen.insert(endpoint).inserted {
            do {
                let socket = try BoundSocket(on: loop, endpoint, options)
                state.addresses.append(socket.address)
                state.sockets.append(Place(socket))
            } catch .io(let error) where error.errno == EADDRNOTAVAIL || error.errno == EAFNOSUPPORT {
                unavailable = .io(error)
            }
        }
        if let unavailable, state.sockets.isEmpty { throw unavailable }
        self.state = Lock(state)
    }

    /// Binds to all addresses of all `hosts`: literal addresses, names, or `""` for every address of this machine. With
    /// port 0 each address gets a port of its own.
    /// - Throws: The errors of ``Loop/resolve(_:port:)`` and of ``init(on:endpoints:options:)``.
    nonisolated(nonsending) public static func bind(
        to hosts: [String] = [""], port: UInt16, on loop: any Loop, options: ListenOptions = ListenOptions()
    ) async throws(LoopError) -> Server {
        var endpoints: [SocketAddress] = []
        for host in hosts {
            if host.isEmpty {
                endpoints += [try SocketAddress("0.0.0.0", port), try SocketAddress("::", port)]
            } else {
                endpoints += try await loop.resolve(host, port: port)
            }
        }
        return try Server(on: loop, endpoints: endpoints, options: options)
    }

    /// Where it listens, or will; ports are the real ones if 0 was asked for. Empty once it is closed.
    public var addresses: [SocketAddress] { state.withLock { $0.addresses } }
    /// Its listening sockets, which still belong to it. Empty once it is closed.
    public var descriptors: [Int32] {
        state.withLock { $0.sockets.map { $0.socket.rawDescriptor } + $0.listeners.map(\.descriptor) }
    }
    /// Whether it has been started, and neither it nor its loop has been closed.
    public var isServing: Bool { state.withLock { $0.isServing } && !loop.isClosed }
    /// Whether ``close()`` has been called.
    public var isClosed: Bool { state.withLock { $0.isClosed } }
    /// How many connections are being served.
    public var connectionCount: Int { state.withLock { $0.clients.count } }

    // MARK: Serving

    /// Listens, and serves each connection with a task of its own. A server that serves already goes on as it did.
    /// - Throws: `.connectionClosed` after ``close()``; `.closed`; `.wrongThread`; `.io` if it cannot listen, and then
    ///   it is closed.
    public func start(_ body: @escaping Body) throws(LoopError) {
        try start(serving: { self.serve($0, with: body) })
    }

    /// Listens, and serves each connection with the handler that `makeHandler` returns for it: without a task, which is
    /// the fastest way. What `makeHandler` throws is reported, and ends that connection.
    /// - Throws: As ``start(_:)``.
    public func startHandling(
        _ makeHandler: @escaping @Sendable (Connection) throws -> any StreamHandler
    ) throws(LoopError) {
        try start(serving: { self.serve($0, with: makeHandler) })
    }

    private func start(serving serve: @escaping (Connection) -> Void) throws(LoopError) {
        try loop.core.check("start")
        do {
            try state.withLock { (state) throws(LoopError) in
                if state.isClosed { throw .connectionClosed(operation: "start") }
                if state.isServing { return }
                for place in state.sockets {
                    let listener = try Listener(&place.socket)
                    state.listeners.append(listener)
                    try listener.start(serve)
                }
                state.sockets = []
                state.isServing = true
            }
        } catch {
            close()
            throw error
        }
    }

    /// Starts, and returns once the server is closed and its last connection has ended: ``start(_:)`` and
    /// ``serve(gracePeriod:)`` in one.
    /// - Throws: `.busy` if the server serves already; the errors of both.
    nonisolated(nonsending) public func serve(
        gracePeriod: Duration = .seconds(5), _ body: @escaping Body
    ) async throws(LoopError) {
        if isServing { throw .busy(operation: "serve") }
        try start(body)
        try await serve(gracePeriod: gracePeriod)
    }

    /// Waits until a started server is closed and its last connection has ended.
    ///
    /// Cancelling the task closes the server, cancels the tasks of its connections and closes these politely. Those that
    /// are not at their end after `gracePeriod` are aborted. A body that ignores its cancel is waited for. Source:
    /// asyncio's `serve_forever`.
    /// - Throws: `.cancelled`; `.closed` if the loop is closed meanwhile; `.busy` while another task waits here;
    ///   `.connectionClosed` if the server is closed, `.io` with `EINVAL` if it was not started.
    nonisolated(nonsending) public func serve(gracePeriod: Duration = .seconds(5)) async throws(LoopError) {
        try loop.core.check("serve")
        try state.withLock { (state) throws(LoopError) in
            if state.isClosed { throw .connectionClosed(operation: "serve") }
            if !state.isServing { throw .io(IOError(errno: EINVAL, operation: "serve before start")) }
            if state.isAwaited { throw .busy(operation: "serve") }
            state.isAwaited = true
        }
        defer { state.withLock { $0.isAwaited = false } }
        do {
            try await waitClosed()
        } catch .cancelled {
            close()
            closeClients()
            for client in clients { client.task?.cancel() }
            let timer = try? loop.callLater(gracePeriod) { self.abortClients() }
            defer { timer?.cancel() }
            // Nothing cancels this: who comes back from here may rely on the end.
            try await EndOfServer(self).waitUncancelled()
            throw .cancelled(operation: "serve")
        }
    }

    private func serve(_ connection: Connection, with body: @escaping Body) {
        let key = ObjectIdentifier(connection)
        let isWanted = state.withLock { state in
            // Another thread may have closed it just now.
            if state.isClosed { return false }
            let task = loop.spawn { [self] in
                do {
                    try await body(connection)
                } catch {
                    report(error, of: connection)
                }
                await connection.close()
                ended(key)
            }
            state.clients[key] = Client(connection: connection, task: task)
            return true
        }
        if !isWanted { connection.abort() }
    }

    private func serve(_ connection: Connection, with makeHandler: (Connection) throws -> any StreamHandler) {
        let key = ObjectIdentifier(connection)
        let isWanted = state.withLock { state in
            if !state.isClosed { state.clients[key] = Client(connection: connection, task: nil) }
            return !state.isClosed
        }
        guard isWanted else { return connection.abort() }
        connection.useRare().onLoss = { self.ended(key) }
        do {
            try connection.start(makeHandler(connection))
        } catch {
            report(error, of: connection)
            connection.abort()
            ended(key)
        }
    }

    private func report(_ error: any Error, of connection: Connection) {
        if error is CancellationError { return }
        switch error as? LoopError {
        case .cancelled, .connectionClosed, .closed: break
        default: loop.core.report(error, "connection of a server", connection: connection)
        }
    }

    private func ended(_ key: ObjectIdentifier) {
        state.withLock { $0.clients[key] = nil }
        tellIfEnded()
    }

    private func tellIfEnded() {
        let waits = state.withLock { state -> [EndOfServer] in
            guard state.hasEnded else { return [] }
            defer { state.waits = [:] }
            return Array(state.waits.values)
        }
        for wait in waits { wait.end() }
    }

    private var clients: [Client] { state.withLock { Array($0.clients.values) } }

    // MARK: The end

    /// Refuses connections from here on; called on another thread, from the loop's next pass on. Those accepted live
    /// on. Calling it again does nothing.
    public func close() {
        let (listeners, sockets) = state.withLock { state -> ([Listener], [Place]) in
            defer {
                state.isClosed = true
                state.isServing = false
                state.addresses = []
                state.sockets = []
                state.listeners = []
            }
            return (state.listeners, state.sockets)
        }
        for listener in listeners { listener.close() }
        withExtendedLifetime(sockets) {}
        tellIfEnded()
    }

    /// Closes every connection politely: what is queued is sent first. Their reads throw `.connectionClosed`. Call
    /// ``close()`` before, or new ones will come.
    public func closeClients() {
        for client in clients { client.connection.closeSoon() }
    }

    /// Closes every connection at once and cancels its task; what is queued is dropped.
    public func abortClients() {
        for client in clients {
            client.connection.abort()
            client.task?.cancel()
        }
    }

    /// Waits until the server is closed and no connection is left, in whatever order that comes. Any number of tasks
    /// may wait.
    /// - Throws: `.cancelled`; `.closed` if the loop is, now or meanwhile; `.wrongThread`.
    nonisolated(nonsending) public func waitClosed() async throws(LoopError) {
        if hasEnded { return }
        try await EndOfServer(self).wait()
    }

    private var hasEnded: Bool { state.withLock { $0.hasEnded } }

    /// Closes the server, gives its connections `gracePeriod` to come to their end, and aborts those that are left. A
    /// body that ignores its cancel is waited for.
    /// - Returns: Whether all of them ended by themselves.
    /// - Throws: `.closed` and `.wrongThread`, with nothing done; `.cancelled`, in which case the server is closed and
    ///   the connections go on.
    @discardableResult
    nonisolated(nonsending) public func shutdown(gracePeriod: Duration) async throws(LoopError) -> Bool {
        if hasEnded { return true }
        try loop.core.check("shutdown")
        close()
        if hasEnded { return true }
        let limit = Limit()
        let timer = try loop.callLater(gracePeriod) {
            limit.passed = true
            self.abortClients()
        }
        defer { timer.cancel() }
        try await waitClosed()
        return !limit.passed
    }

    private final class Limit { var passed = false }

    /// A server for the length of `body`. At its end the server is closed, and the connections that are still open
    /// politely; those that are not at their end after `gracePeriod` are aborted, all of them if `body` throws.
    nonisolated(nonsending) public static func withServer<Success>(
        on loop: any Loop, endpoints: [SocketAddress], options: ListenOptions = ListenOptions(),
        gracePeriod: Duration = .seconds(5), serving serve: @escaping Body,
        _ body: nonisolated(nonsending) (Server) async throws -> Success
    ) async throws -> Success {
        let server = try Server(on: loop, endpoints: endpoints, options: options)
        try server.start(serve)
        do {
            let result = try await body(server)
            server.close()
            server.closeClients()
            try await server.shutdown(gracePeriod: gracePeriod)
            return result
        } catch {
            server.close()
            server.abortClients()
            try? await EndOfServer(server).waitUncancelled()
            throw error
        }
    }

    // MARK: Waiting

    /// - Returns: Whether there is something to wait for.
    fileprivate func add(_ wait: EndOfServer) -> Bool {
        state.withLock { state in
            if state.hasEnded { return false }
            state.waits[ObjectIdentifier(wait)] = wait
            return true
        }
    }

    fileprivate func remove(_ wait: EndOfServer) -> Bool {
        state.withLock { $0.waits.removeValue(forKey: ObjectIdentifier(wait)) != nil }
    }
}

/// One wait for the end of a server: a sleep without end, which the server, a cancel, or the close of the loop ends. On
/// the loop's thread.
private final class EndOfServer: WaitingPlace, @unchecked Sendable {
    private let server: Server
    private var core: LoopCore { server.loop.core }
    private var id = lc_call_id()
    private var cancelled = false

    init(_ server: Server) { self.server = server }

    nonisolated(nonsending) func wait() async throws(LoopError) {
        try check()
        let result = await waitToReceive { start($0) }
        try finish(result)
    }

    nonisolated(nonsending) func waitUncancelled() async throws(LoopError) {
        try check()
        let result = await EventLoops.waitUncancelled { start($0) }
        try finish(result)
    }

    private func check() throws(LoopError) {
        try core.check("waitClosed")
        guard core.isOnLoop else { throw core.wrongThread("waitClosed") }
    }

    private func start(_ word: UInt64) -> Int32 {
        let result = lc_call_at(core.loop, LC_KIND_SLEEP, .max, word, &id)
        if result < 0 || server.add(self) { return result }
        var word: UInt64 = 0
        lc_call_cancel(core.loop, id, &word)
        return -EALREADY
    }

    private func finish(_ result: Int32) throws(LoopError) {
        if result == -EALREADY { return }
        if result < 0 { throw LoopError(core: result, operation: "waitClosed") }
        if cancelled { throw .cancelled(operation: "waitClosed") }
        // Taken off the list already, unless the loop's close has ended the wait.
        if server.remove(self) { throw .closed }
    }

    /// Any thread. The task runs when its turn comes, and not within the call that ended the server.
    func end() {
        guard core.isOnLoop else { return core.cancelSoon { self.wake() } }
        wake()
    }

    private func wake() {
        var word: UInt64 = 0
        if lc_call_cancel(core.loop, id, &word) == 1 { Waiter(word: word).resume() }
    }

    override func cancelReceive() {
        core.cancelSoon { [self] in
            guard server.remove(self) else { return }
            cancelled = true
            wake()
        }
    }
}
