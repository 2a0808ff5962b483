// SPDX-License-Identifier: Apache-2.0
//
// Server.swift: listening sockets, a task for each connection they accept, and an orderly end of both.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A TCP server of a loop: it listens on some addresses and runs a task for each connection.
///
/// Call it on the loop's thread; not yet checked by all members. A server that was started lives until it is closed:
/// close it before its loop, whose close it is not told of yet. Source: asyncio's
/// `AbstractServer`. Connections served by ``StreamHandler`` need no server: see ``Listener/start(_:)``.
public final class Server: @unchecked Sendable {
    /// Serves one connection, which is closed when it returns. What it throws is reported to the loop's
    /// `onUnhandledError`, unless it is a cancel or a close on this side.
    public typealias Body = @Sendable (Connection) async throws -> Void

    /// The loop it belongs to.
    public let loop: any Loop
    /// Where it listens, or will; ports are the real ones if 0 was asked for. Empty once it is closed.
    public private(set) var addresses: [SocketAddress]
    /// Whether it has been started and not closed.
    public private(set) var isServing = false
    /// Whether ``close()`` has been called.
    public private(set) var isClosed = false

    private var sockets: [Place] = []
    private var listeners: [Listener] = []
    private var clients: [ObjectIdentifier: Client] = [:]
    /// Those who wait for the end of the last connection.
    private var waits: [ObjectIdentifier: EndOfServer] = [:]

    private struct Client {
        let connection: Connection
        let task: Task<Void, any Error>
    }

    /// A bound socket in an array, which takes copyable things only.
    private final class Place {
        var socket: BoundSocket
        init(_ socket: consuming BoundSocket) { self.socket = consume socket }
    }

    /// Binds to all of `endpoints`; an endpoint that is named twice counts once. Nothing listens before ``start(_:)``.
    /// - Throws: `.io` with the address that cannot be had. One that this machine does not have (`EADDRNOTAVAIL`) is
    ///   passed over as long as another one can be had. On an error nothing stays bound.
    public init(
        on loop: any Loop, endpoints: [SocketAddress], options: ListenOptions = ListenOptions()
    ) throws(LoopError) {
        self.loop = loop
        addresses = []
        var unavailable: LoopError?
        var seen: Set<SocketAddress> = []
        for endpoint in endpoints where seen.insert(endpoint).inserted {
            do {
                let socket = try BoundSocket(on: loop, endpoint, options)
                addresses.append(socket.address)
                sockets.append(Place(socket))
            } catch .io(let error) where error.errno == EADDRNOTAVAIL {
                unavailable = .io(error)
            }
        }
        if let unavailable, sockets.isEmpty { throw unavailable }
    }

    /// How many connections are being served.
    public var connectionCount: Int { clients.count }

    // MARK: Serving

    /// Listens, and serves each connection with a task of its own. A server that serves already goes on as it did.
    /// - Throws: `.connectionClosed` after ``close()``; `.wrongThread`; `.io` if it cannot listen, and then it is closed.
    public func start(_ body: @escaping Body) throws(LoopError) {
        try loop.core.check("start")
        if isClosed { throw .connectionClosed(operation: "start") }
        if isServing { return }
        do {
            for place in sockets {
                let listener = try Listener(&place.socket)
                listeners.append(listener)
                try listener.start { self.serve($0, with: body) }
            }
        } catch {
            close()
            throw error
        }
        sockets = []
        isServing = true
    }

    /// Starts, and returns once the server is closed and its last connection has ended. Cancelling the task closes
    /// the server and politely its connections, cancels their tasks, and waits for them: without a limit, so a peer that
    /// does not read what is queued holds it up.
    /// - Throws: `.cancelled`; `.busy` if the server serves already; the errors of ``start(_:)``.
    nonisolated(nonsending) public func serve(_ body: @escaping Body) async throws(LoopError) {
        if isServing { throw .busy(operation: "serve") }
        try start(body)
        do {
            try await waitClosed()
        } catch {
            close()
            closeClients()
            for client in clients.values { client.task.cancel() }
            // Nothing cancels this: who comes back from here may rely on the end.
            _ = try? await EndOfServer(self).waitUncancelled()
            throw error
        }
    }

    private func serve(_ connection: Connection, with body: @escaping Body) {
        let key = ObjectIdentifier(connection)
        let task = loop.spawn { [self] in
            do {
                try await body(connection)
            } catch {
                report(error, of: connection)
            }
            await connection.close()
            ended(key)
        }
        clients[key] = Client(connection: connection, task: task)
    }

    private func report(_ error: any Error, of connection: Connection) {
        if error is CancellationError { return }
        switch error as? LoopError {
        case .cancelled, .connectionClosed, .closed: break
        default: loop.core.report(error, "connection of a server", connection: connection)
        }
    }

    private func ended(_ key: ObjectIdentifier) {
        clients[key] = nil
        tellIfEnded()
    }

    private var hasEnded: Bool { isClosed && clients.isEmpty }

    private func tellIfEnded() {
        guard hasEnded else { return }
        let waits = waits.values
        self.waits = [:]
        for wait in waits { wait.end() }
    }

    // MARK: The end

    /// Refuses connections from here on. Those accepted live on. Calling it again does nothing.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        isServing = false
        addresses = []
        sockets = []
        for listener in listeners { listener.close() }
        listeners = []
        tellIfEnded()
    }

    /// Closes every connection politely: what is queued is sent first. Their reads throw `.connectionClosed`. Call
    /// ``close()`` before, or new ones will come.
    public func closeClients() {
        for client in clients.values { client.connection.closeSoon() }
    }

    /// Closes every connection at once and cancels its task; what is queued is dropped.
    public func abortClients() {
        for client in clients.values {
            client.connection.abort()
            client.task.cancel()
        }
    }

    /// Waits until the server is closed and no connection is left, in whatever order that comes. Any number of tasks
    /// may wait.
    /// - Throws: `.cancelled`. Not yet: `.closed` if the loop is closed meanwhile; the wait does not end then.
    nonisolated(nonsending) public func waitClosed() async throws(LoopError) {
        if hasEnded { return }
        try await EndOfServer(self).wait()
    }

    /// Closes the server, gives its connections `gracePeriod` to come to their end, and aborts those that are left. A
    /// body that ignores its cancel is waited for.
    /// - Returns: Whether all of them ended by themselves.
    /// - Throws: `.cancelled`, in which case the server is closed and the connections go on.
    @discardableResult
    nonisolated(nonsending) public func shutdown(gracePeriod: Duration) async throws(LoopError) -> Bool {
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

    /// A server for the length of `body`, closed and waited for at its end; connections that are still open then are
    /// closed politely.
    nonisolated(nonsending) public static func withServer<Success>(
        on loop: any Loop, endpoints: [SocketAddress], options: ListenOptions = ListenOptions(),
        serving serve: @escaping Body,
        _ body: nonisolated(nonsending) (Server) async throws -> Success
    ) async throws -> Success {
        let server = try Server(on: loop, endpoints: endpoints, options: options)
        try server.start(serve)
        do {
            let result = try await body(server)
            server.close()
            server.closeClients()
            try await server.waitClosed()
            return result
        } catch {
            server.close()
            server.abortClients()
            _ = try? await EndOfServer(server).waitUncancelled()
            throw error
        }
    }

    // MARK: Waiting

    fileprivate func add(_ wait: EndOfServer) -> Int32 {
        if hasEnded { return -1 }
        waits[ObjectIdentifier(wait)] = wait
        return 0
    }

    fileprivate func remove(_ wait: EndOfServer) -> Bool { waits.removeValue(forKey: ObjectIdentifier(wait)) != nil }
}

/// One wait for the end of a server, as its cancel sees it. On the loop's thread.
private final class EndOfServer: WaitingPlace, @unchecked Sendable {
    private let server: Server
    private var word: UInt64 = 0
    private var cancelled = false

    init(_ server: Server) { self.server = server }

    nonisolated(nonsending) func wait() async throws(LoopError) {
        try server.loop.core.check("waitClosed")
        _ = await waitToReceive { start($0) }
        if cancelled { throw .cancelled(operation: "waitClosed") }
    }

    nonisolated(nonsending) func waitUncancelled() async throws(LoopError) {
        try server.loop.core.check("waitClosed")
        _ = await EventLoops.waitUncancelled { start($0) }
    }

    private func start(_ word: UInt64) -> Int32 {
        self.word = word
        return server.add(self)
    }

    func end() { server.loop.core.resume(word) }

    override func cancelReceive() {
        server.loop.core.cancelSoon { [self] in
            guard server.remove(self) else { return }
            cancelled = true
            end()
        }
    }
}
