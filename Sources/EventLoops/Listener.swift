// SPDX-License-Identifier: Apache-2.0
//
// Listener.swift: a listening socket, and the connections that come from it.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Sizes and switches of a listening socket.
public struct ListenOptions: Sendable, Hashable {
    /// Connections the kernel keeps until they are accepted.
    public var backlog: Int32 = 1024
    /// Lets several listeners share a port; the kernel spreads connections over them.
    public var reusePort = false
    /// Lets the kernel ask peers that are silent for long whether they are still there (`SO_KEEPALIVE`).
    public var keepAlive = false
    /// When it asks them.
    public var keepAliveTiming = KeepAliveTiming()
    /// Sends small writes at once rather than gather them while an answer is due (`TCP_NODELAY`).
    public var noDelay = true
    /// Keeps an IPv6 socket to IPv6 (`IPV6_V6ONLY`), so that another one can have the port for IPv4.
    public var v6Only = true
    /// Removes the path of a Unix socket when it closes, if it is still the same file.
    public var removesPath = true
    public init() {}
}

/// A listening TCP or Unix socket of a loop: an `AsyncSequence` of connections, or a source of calls to a closure.
///
/// When descriptors or memory run out, accepting pauses, is reported once to the loop's `onUnhandledError`, and goes on
/// as soon as a connection of the loop is closed, or after a while. Call it on the loop's thread.
public final class Listener: WaitingPlace, AsyncSequence, @unchecked Sendable {
    public typealias Element = Connection
    public typealias Failure = LoopError

    let core: LoopCore
    let listener: OpaquePointer
    /// Where it listens; the port is the real one if 0 was asked for.
    public let address: SocketAddress
    /// The descriptor, still owned by the listener.
    public var descriptor: Int32 { lc_listener_fd(listener) }
    /// Of a Unix socket, until it is removed.
    private var file: SocketFile?
    private var onConnection: ((Connection) -> Void)?
    private var started: Unmanaged<Listener>?

    /// Binds and listens.
    /// - Parameter port: 0 lets the kernel pick one.
    /// - Throws: `.invalidAddress`; `.io` with the errno of `bind` or `listen`, and the address.
    public convenience init(
        on loop: any Loop, address host: String = "127.0.0.1", port: UInt16, options: ListenOptions = ListenOptions()
    ) throws(LoopError) {
        try self.init(on: loop, SocketAddress(host, port), options: options)
    }

    /// Binds and listens. A path at which a server that is gone left its socket is taken over; one where somebody
    /// listens, and any other file, is `EADDRINUSE`.
    /// - Throws: `.io` with the errno of `bind` or `listen`, and the address.
    public convenience init(
        on loop: any Loop, _ address: SocketAddress, options: ListenOptions = ListenOptions()
    ) throws(LoopError) {
        var socket = try BoundSocket(on: loop, address, options)
        try self.init(&socket)
    }

    init(_ socket: inout BoundSocket) throws(LoopError) {
        core = socket.core
        address = socket.address
        file = socket.file
        listener = try socket.listen()
        super.init()
    }

    deinit {
        let (core, listener) = (core, listener)
        file?.remove()
        if core.isOnLoop || !lc_loop_is_running(core.loop) {
            lc_listener_release(listener)
        } else {
            let address = UInt(bitPattern: listener)
            core.cancelSoon { lc_listener_release(OpaquePointer(bitPattern: address)) }
        }
    }

    /// Accepts the next connection, suspending until there is one.
    /// - Throws: `.cancelled`, `.busy`, `.connectionClosed` once the listener is closed.
    nonisolated(nonsending) public func accept() async throws(LoopError) -> Connection {
        guard core.isOnLoop else { throw core.wrongThread("accept") }
        while true {
            var stream: OpaquePointer?
            let result = lc_listener_take(listener, &stream)
            if result == 1 { return Connection(core, stream.unsafelyUnwrapped) }
            if result != -EAGAIN { throw LoopError(core: result, operation: "accept") }
            reportPause()
            if lc_listener_waits(listener) { throw .busy(operation: "accept") }
            lc_listener_prepare_wait(listener)
            let waited = await waitToReceive { lc_listener_wait(listener, $0) }
            if waited < 0 { throw LoopError(core: waited, operation: "accept") }
            if lc_loop_is_closed(core.loop) { throw .connectionClosed(operation: "accept") }
        }
    }

    override func cancelReceive() {
        let token = lc_listener_token(listener)
        core.cancelSoon { lc_listener_cancel(self.listener, token) }
    }

    private func reportPause() {
        let error = lc_listener_take_backoff(listener)
        if error < 0 {
            core.report(IOError(errno: error, operation: "accept on \(address)"), "accept", address: address)
        }
    }

    /// Calls `body` for each connection, in place of ``accept()``.
    /// - Throws: `.busy` while an accept waits; `.connectionClosed` once the listener is closed.
    public func start(_ body: @escaping (Connection) -> Void) throws(LoopError) {
        try core.check("start")
        let result = lc_listener_start(listener)
        if result < 0 { throw LoopError(core: result, operation: "start") }
        onConnection = body
        if started == nil {
            started = Unmanaged.passRetained(self)
            lc_listener_set_word(listener, UInt64(UInt(bitPattern: started!.toOpaque())))
        }
    }

    static func of(_ listener: OpaquePointer?) -> Listener? {
        guard let raw = UnsafeRawPointer(bitPattern: UInt(lc_listener_word(listener))) else { return nil }
        return Unmanaged<Listener>.fromOpaque(raw).takeUnretainedValue()
    }

    func deliverAccepted() {
        var stream: OpaquePointer?
        while let onConnection {
            let result = lc_listener_take(listener, &stream)
            guard result == 1 else { break }
            onConnection(Connection(core, stream.unsafelyUnwrapped))
        }
        reportPause()
        lc_listener_finish_delivery(listener)
    }

    /// Refuses connections from here on, and drops those that nobody has accepted. Those accepted live on. An accept
    /// that waits throws `.connectionClosed`. Calling it again does nothing.
    public func close() {
        guard core.isOnLoop || !lc_loop_is_running(core.loop) else { return core.cancelSoon { self.close() } }
        if !lc_loop_is_closed(core.loop) { lc_listener_close(listener) }
        loopClosed()
    }

    /// Lets go of what a started listener holds.
    func loopClosed() {
        file.take()?.remove()
        onConnection = nil
        lc_listener_set_word(listener, 0)
        started.take()?.release()
    }

    // MARK: AsyncSequence

    /// Ends when the listener is closed.
    public struct AsyncIterator: AsyncIteratorProtocol {
        let listener: Listener

        public mutating func next() async throws(LoopError) -> Connection? {
            try await next(isolation: nil)
        }

        public mutating func next(isolation actor: isolated (any Actor)?) async throws(LoopError) -> Connection? {
            do {
                return try await listener.accept()
            } catch .connectionClosed {
                return nil
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(listener: self) }
}
