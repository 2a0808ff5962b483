// SPDX-License-Identifier: Apache-2.0
//
// Socket.swift: a stream socket that the caller drives: each call tries the system call first, and waits if it must.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A non-blocking stream socket that the caller drives.
///
/// Every operation tries its system call first and suspends only if the kernel has nothing for it. A wait that is
/// cancelled has touched no byte, so the next operation goes on where this one stopped. One task at a time receives, and
/// one sends: another one throws `.busy`. Tasks that accept are served in the order they came.
///
/// Call it on the loop's thread, unless a member says otherwise. The socket owns its descriptor and closes it once: with
/// ``close()``, or when it is dropped. An operation that waits costs one poll of the loop and one object; one that does
/// not costs its system call. For streams that are read and written for long, ``Connection`` is faster. Source: asyncio's
/// `sock_recv`, `sock_sendall`, `sock_connect`, `sock_accept` and `sock_sendfile`.
public final class Socket: Sendable {
    struct State {
        /// -1: closed, or released.
        var descriptor: Int32
        var isClosing = false
        /// The address of a `connect` that was begun and not seen to end.
        var connecting: SocketAddress?
        var reading = SocketTurns()
        var writing = SocketTurns()

        subscript(side: SocketSide) -> SocketTurns {
            get { side == .reading ? reading : writing }
            set { if side == .reading { reading = newValue } else { writing = newValue } }
        }
    }

    let core: LoopCore
    /// Locked, as tasks of a closed loop come to their end on another thread.
    let state: Lock<State>

    init(_ core: LoopCore, owning descriptor: Int32) {
        self.core = core
        state = Lock(State(descriptor: descriptor))
    }

    /// Takes over a stream socket, which is made non-blocking and close-on-exec.
    /// - Throws: `.ownedByTransport` if a connection or listener of the loop has it; `.io` if it is no stream socket;
    ///   `.closed`, `.forked`, `.wrongThread`. The descriptor is the caller's then.
    public convenience init(adopting descriptor: Int32, on loop: any Loop) throws(LoopError) {
        try loop.core.check("adopt")
        if lc_loop_owns_descriptor(loop.core.loop, descriptor) { throw .ownedByTransport(descriptor: descriptor) }
        let result = lc_socket_prepare(descriptor)
        if result < 0 { throw .io(IOError(errno: result, operation: "adopt")) }
        self.init(loop.core, owning: descriptor)
    }

    /// Opens a socket of the family that `address` is of, to connect there or to bind there.
    public convenience init(for address: SocketAddress, on loop: any Loop) throws(LoopError) {
        try loop.core.check("open a socket")
        var descriptor: Int32 = -1
        let result = lc_socket_open(address.family, false, &descriptor)
        if result < 0 { throw .io(IOError(errno: result, operation: "open a socket for \(address)")) }
        self.init(loop.core, owning: descriptor)
    }

    /// Two Unix sockets that are connected to each other.
    public static func pair(on loop: any Loop) throws(LoopError) -> (Socket, Socket) {
        try loop.core.check("open a pair of sockets")
        var ends: (Int32, Int32) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &ends) {
            lc_socket_pair($0.baseAddress!.assumingMemoryBound(to: Int32.self))
        }
        if result < 0 { throw .io(IOError(errno: result, operation: "open a pair of sockets")) }
        return (Socket(loop.core, owning: ends.0), Socket(loop.core, owning: ends.1))
    }

    deinit {
        let descriptor = state.withLock { $0.descriptor }
        if descriptor >= 0 { closeDescriptor(descriptor) }
    }

    // MARK: Looking at it

    /// The descriptor, still owned by the socket; -1 once it is closed or released. Any thread.
    public var descriptor: Int32 { state.withLock { $0.descriptor } }
    /// Whether it was closed or released. Any thread.
    public var isClosed: Bool { state.withLock { $0.isClosing || $0.descriptor < 0 } }
    /// This end's address.
    public var localAddress: SocketAddress? { SocketAddress { lc_address_local(descriptor, $0) } }
    /// The other end's address, asked of the kernel now.
    public var remoteAddress: SocketAddress? { SocketAddress { lc_address_peer(descriptor, $0) } }

    func checkUsable(_ operation: StaticString) throws(LoopError) {
        try core.check(operation)
        if !core.isOnLoop { throw core.wrongThread("\(operation)") }
        let descriptor = try openDescriptor(operation)
        if lc_loop_owns_descriptor(core.loop, descriptor) { throw .ownedByTransport(descriptor: descriptor) }
    }

    private func openDescriptor(_ operation: StaticString) throws(LoopError) -> Int32 {
        let descriptor = state.withLock { $0.isClosing ? -1 : $0.descriptor }
        if descriptor < 0 { throw .connectionClosed(operation: "\(operation)") }
        return descriptor
    }

    func closed(_ operation: StaticString) -> LoopError {
        lc_loop_is_closed(core.loop) ? .closed : .connectionClosed(operation: "\(operation)")
    }

    // MARK: Connect, listen, accept

    /// Connects. A connect that was cancelled goes on in the kernel; calling this again with the same address waits for it.
    /// - Throws: `.io` with the errno and the address; `.cancelled`; `.busy` while another task sends or connects.
    nonisolated(nonsending) public func connect(to address: SocketAddress) async throws(LoopError) {
        try await take(.writing, "connect")
        defer { give(.writing) }
        let earlier = state.withLock { $0.connecting }
        let core = address.core
        var result = withUnsafePointer(to: core) { lc_socket_connect(descriptor, $0) }
        if result == -EISCONN, earlier == address { result = 0 }
        if result == -EINPROGRESS || (result == -EALREADY && earlier == address) {
            state.withLock { $0.connecting = address }
            try await wait(.writing, "connect")
            result = lc_socket_error(descriptor)
        }
        state.withLock { if result == 0 || $0.connecting == address { $0.connecting = nil } }
        if result < 0 { throw .io(IOError(errno: result, operation: "connect to \(address)")) }
    }

    /// Gives the socket its address. Port 0 lets the kernel pick one; see ``localAddress``. A Unix socket's file stays.
    public func bind(to address: SocketAddress) throws(LoopError) {
        try core.check("bind")
        let descriptor = try openDescriptor("bind")
        let result = withUnsafePointer(to: address.core) { lc_socket_bind_to(descriptor, $0) }
        if result < 0 { throw .io(IOError(errno: result, operation: "bind to \(address)")) }
    }

    /// Lets peers connect, of which up to `backlog` may wait to be accepted.
    public func listen(backlog: Int32 = 128) throws(LoopError) {
        try core.check("listen")
        let result = lc_socket_start_listening(try openDescriptor("listen"), backlog)
        if result < 0 { throw .io(IOError(errno: result, operation: "listen")) }
    }

    /// Takes the next connection. Any number of tasks may wait here: the first to come is the first to be served.
    /// - Returns: A socket that does not block and does not survive `exec`, and the peer's address: `nil` for a Unix
    ///   socket without a name.
    nonisolated(nonsending) public func accept() async throws(LoopError) -> (socket: Socket, address: SocketAddress?) {
        try await take(.reading, "accept", queued: true)
        defer { give(.reading) }
        var peer = lc_address()
        while true {
            let result = lc_socket_accept(descriptor, &peer)
            if result >= 0 {
                let address = SocketAddress {
                    $0.pointee = peer
                    return 0
                }
                return (Socket(core, owning: result), address)
            }
            if result != -EAGAIN { throw .io(IOError(errno: result, operation: "accept")) }
            try await wait(.reading, "accept")
        }
    }

    // MARK: The end

    /// Finishes sending: the peer reads an end, and receiving here goes on.
    public func finishSending() throws(LoopError) {
        try core.check("finishSending")
        if shutdown(try openDescriptor("finishSending"), Int32(SHUT_WR)) < 0 {
            throw .io(IOError(errno: errno, operation: "finishSending"))
        }
    }

    /// Closes the descriptor, once. Those who wait throw `.connectionClosed` first. Calling it again does nothing. Any
    /// thread: on others the loop's own closes it, as soon as it runs.
    public func close() {
        if core.isOnLoop { return closeHere() }
        do { try core.callSoonThreadsafe { self.closeHere() } } catch { closeHere() }
    }

    private func closeHere() {
        state.withLock { $0.isClosing = true }
        if core.isOnLoop { endWaits() }
        closeIfUnused()
    }

    func closeIfUnused() {
        let descriptor = state.withLock { state -> Int32 in
            guard state.isClosing, !state.reading.isTaken, !state.writing.isTaken else { return -1 }
            defer { state.descriptor = -1 }
            return state.descriptor
        }
        if descriptor >= 0 { closeDescriptor(descriptor) }
    }

    /// Gives the descriptor to the caller, who closes it. It stays non-blocking. Throws otherwise, and nothing changes.
    /// - Throws: `.busy` while an operation is under way; `.connectionClosed`; `.wrongThread`.
    public func release() throws(LoopError) -> Int32 {
        if !core.isOnLoop, lc_loop_is_running(core.loop) { throw core.wrongThread("release") }
        return try state.withLock { state throws(LoopError) -> Int32 in
            if state.isClosing || state.descriptor < 0 { throw .connectionClosed(operation: "release") }
            if state.reading.isTaken || state.writing.isTaken { throw .busy(operation: "release") }
            defer { state.descriptor = -1 }
            return state.descriptor
        }
    }
}
