// SPDX-License-Identifier: Apache-2.0
//
// Connection.swift: a connected stream, read and written by tasks of its loop.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A connected stream socket of a loop.
///
/// Call it on the loop's thread: from its tasks, callbacks and handlers. Elsewhere every member that can throw throws
/// `.wrongThread`, and ``pauseReading()`` and ``resumeReading()`` do nothing.
/// A connection that is dropped without ``close()`` is aborted.
public final class Connection: WaitingPlace, @unchecked Sendable {
    let core: LoopCore
    @usableFromInline let stream: OpaquePointer
    /// Told what arrives, in place of a reader. Held strongly until the connection is lost, as is the connection.
    @exclusivity(unchecked) var handler: (any StreamHandler)?
    /// What few connections need. One byte more in each connection would be sixteen: malloc's next size.
    @exclusivity(unchecked) var rare: Rare?

    final class Rare {
        /// Others than usual.
        var limits = WriteLimits()
        /// Those who wait for the close behind the first one.
        var closers: [Waiter] = []
        /// Told of the loss behind the handler.
        var onLoss: (() -> Void)?
    }

    /// When queued bytes make ``write(_:)`` wait, and a handler hear of it; see ``WriteLimits``. A change that finds too
    /// many queued is told at once; one that finds few waits for the next bytes to leave.
    public var writeLimits: WriteLimits {
        get { rare?.limits ?? WriteLimits() }
        set {
            useRare().limits = newValue
            guard handler != nil, core.isOnLoop else { return }
            if isWritingPaused {
                lc_stream_want_room(stream, newValue.low)
            } else if isOverHighWaterMark {
                pauseWriting()
            }
        }
    }

    /// More than this many bytes queued: ``write(_:)`` waits until they are at most a quarter of it.
    public var writeHighWaterMark: Int {
        get { writeLimits.high }
        set { writeLimits = WriteLimits(high: newValue) }
    }

    init(_ core: LoopCore, _ stream: OpaquePointer) {
        self.core = core
        self.stream = stream
        super.init()
        lc_stream_set_word(stream, UInt64(UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque())))
    }

    deinit { lc_stream_release(stream) }

    /// Takes over a connected stream socket, which belongs to the connection from here on.
    /// - Throws: `.io` if it is none; `.ownedByTransport` if a connection or listener of the loop has it; `.busy` while
    ///   it is watched or waited for; `.closed`, `.forked`, `.wrongThread`. The descriptor is the caller's then.
    public convenience init(adopting descriptor: Int32, on loop: any Loop) throws(LoopError) {
        try loop.core.check("adopt")
        if lc_loop_owns_descriptor(loop.core.loop, descriptor) { throw .ownedByTransport(descriptor: descriptor) }
        var stream: OpaquePointer?
        let result = lc_stream_adopt(loop.core.loop, descriptor, &stream)
        guard result == 0, let stream else {
            throw result == -EBADF && loop.isClosed ? .closed : LoopError(core: result, operation: "adopt")
        }
        self.init(loop.core, stream)
    }

    /// The descriptor, still owned by the connection: to look at it and set its options, not to close it. -1 once it is
    /// closed.
    public var descriptor: Int32 { isClosed ? -1 : lc_stream_fd(stream) }
    /// Whether the descriptor is closed.
    public var isClosed: Bool { lc_stream_is_closed(stream) }
    /// This end's address, as it was when the connection was made; also once it is closed. `nil` for a Unix socket
    /// without a name. Source: asyncio's `get_extra_info("sockname")`.
    public var localAddress: SocketAddress? { SocketAddress { lc_stream_end_address(stream, false, $0) } }
    /// The other end's address, likewise: the kernel forgets it with a reset. `nil` if the peer was gone by the time the
    /// connection was accepted. Source: asyncio's `get_extra_info("peername")`.
    public var remoteAddress: SocketAddress? { SocketAddress { lc_stream_end_address(stream, true, $0) } }
    /// Bytes queued and not yet accepted by the kernel.
    public var unsentByteCount: Int { lc_stream_unsent(stream) }

    @inline(__always)
    func checkOnLoop(_ operation: StaticString) throws(LoopError) {
        if !core.isOnLoop { throw notOnLoop(operation) }
    }

    private func notOnLoop(_ operation: StaticString) -> LoopError {
        if lc_loop_is_forked(core.loop) { return .forked }
        return lc_loop_is_closed(core.loop)
            ? .connectionClosed(operation: "\(operation)") : core.wrongThread("\(operation)")
    }

    // MARK: Read

    /// Receives the next bytes, suspending until some arrive.
    ///
    /// - Returns: A lease from the loop's buffers; `nil` once the peer has finished sending.
    /// - Throws: `.cancelled` when the task is, and then no byte is lost: what arrives is there for the next read.
    ///   `.busy` while another read waits; `.connectionClosed`; `.io` with the errno that broke the connection.
    /// - Note: One read at a time. Allocates nothing and enters the kernel with the loop's pass.
    /// - Note: Inlined, so that a wait takes one frame and not two.
    @inlinable @inline(__always)
    nonisolated(nonsending) public func read() async throws(LoopError) -> ReceivedBytes? {
        while true {
            var bytes: ReceivedBytes?
            if try take(&bytes) { return bytes }
            if mayPark(#isolation) {
                await parkToReceive(stream)
            } else {
                try await waitForBytes()
            }
        }
    }

    /// - Returns: Whether there is an answer: bytes, or `nil` for the end.
    @usableFromInline
    func take(_ bytes: inout ReceivedBytes?) throws(LoopError) -> Bool {
        try checkOnLoop("read")
        var buffer: UnsafeMutablePointer<lc_buffer>?
        let result = lc_stream_take(stream, &buffer)
        if result == 1 {
            bytes = ReceivedBytes(buffer.unsafelyUnwrapped)
        } else if result == -EAGAIN {
            return false
        } else if result < 0 {
            throw LoopError(core: result, operation: "read")
        }
        return true
    }

    /// The wait of an isolated caller, or of a task that the loop has not spawned.
    @usableFromInline
    nonisolated(nonsending) func waitForBytes() async throws(LoopError) {
        if lc_stream_receive_waits(stream) { throw .busy(operation: "read") }
        lc_stream_prepare_receive(stream)
        let waited = await waitToReceive { lc_stream_wait_receive(stream, $0) }
        if waited < 0 { throw LoopError(core: waited, operation: "read") }
        if lc_loop_is_closed(core.loop) { throw .connectionClosed(operation: "read") }
    }

    /// An isolated caller has to get its actor back, which takes the runtime.
    @inlinable @inline(__always)
    func mayPark(_ isolation: (any Actor)?) -> Bool { isolation == nil && mayPark }

    @usableFromInline
    var mayPark: Bool { lc_stream_may_park(stream) }

    override func cancelReceive() {
        let token = lc_stream_receive_token(stream)
        core.cancelSoon { lc_stream_cancel_receive(self.stream, token) }
    }

    // MARK: Write

    /// Queues received bytes to be sent back, without a copy. They leave with this pass.
    ///
    /// Suspends only while more than ``writeHighWaterMark`` bytes are queued. What is queued is sent in order, also by
    /// a ``close()`` that follows.
    /// - Throws: `.io` with the errno that broke the connection; `.connectionClosed`; `.finishedWriting`; `.cancelled`
    ///   if the task is while it waits, in which case the bytes are queued nevertheless.
    /// - Note: Inlined, as coming back from a function that might have suspended costs a look-up of the executor.
    @inlinable @inline(__always)
    nonisolated(nonsending) public func write(_ bytes: consuming ReceivedBytes) async throws(LoopError) {
        try send(bytes)
        if isOverHighWaterMark { try await waitForRoom() }
    }

    /// Queues a copy of `bytes` to be sent. Otherwise like `write(_:)` of received bytes.
    nonisolated(nonsending) public func write(_ bytes: [UInt8]) async throws(LoopError) {
        try send(copying: bytes.span.bytes)
        if isOverHighWaterMark { try await waitForRoom() }
    }

    @usableFromInline
    var isOverHighWaterMark: Bool { lc_stream_unsent(stream) > writeLimits.high }

    @usableFromInline
    nonisolated(nonsending) func waitForRoom() async throws(LoopError) {
        try await waitToSend(below: writeLimits.low, operation: "write")
    }

    /// Waits until the kernel has accepted everything that was written.
    nonisolated(nonsending) public func flush() async throws(LoopError) {
        try checkOnLoop("flush")
        if lc_stream_unsent(stream) > 0 { try await waitToSend(below: 0, operation: "flush") }
        let error = lc_stream_send_error(stream)
        if error < 0 { throw LoopError(core: error, operation: "flush") }
    }

    /// Queues received bytes without waiting, however many are queued. For handlers, which watch
    /// ``unsentByteCount`` themselves.
    public func send(_ bytes: consuming ReceivedBytes) throws(LoopError) {
        try checkOnLoop("write")
        try checkSent(lc_stream_send(stream, bytes.release()))
        if isOverHighWaterMark { pauseWriting() }
    }

    /// Queues a copy of `bytes` without waiting.
    public func send(copying bytes: RawSpan) throws(LoopError) {
        try checkOnLoop("write")
        try checkSent(bytes.withUnsafeBytes { lc_stream_send_copy(stream, $0.baseAddress, $0.count) })
        if isOverHighWaterMark { pauseWriting() }
    }

    /// Queues copies of several parts in order. They leave in one vectored send, as does all that is written in a pass;
    /// empty ones are passed over, and a handler hears of ``WriteLimits/high`` once, behind the last. Source: asyncio's
    /// `writelines`.
    public func send(copying parts: [[UInt8]]) throws(LoopError) {
        try checkOnLoop("write")
        for part in parts {
            try checkSent(part.withUnsafeBytes { lc_stream_send_copy(stream, $0.baseAddress, $0.count) })
        }
        if isOverHighWaterMark { pauseWriting() }
    }

    /// The same, and waits while too much is queued, like `write(_:)`.
    nonisolated(nonsending) public func write(copying parts: [[UInt8]]) async throws(LoopError) {
        try send(copying: parts)
        if isOverHighWaterMark { try await waitForRoom() }
    }

    @inline(__always)
    func checkSent(_ result: Int32) throws(LoopError) {
        if result < 0 {
            throw result == -EPIPE && lc_stream_send_error(stream) == 0
                ? .finishedWriting : LoopError(core: result, operation: "write")
        }
    }

    /// Finishes sending once everything queued is out; the peer reads an end, and reading here goes on.
    public func finishWriting() throws(LoopError) {
        try checkOnLoop("finishWriting")
        let result = lc_stream_finish_sending(stream)
        if result < 0 { throw LoopError(core: result, operation: "finishWriting") }
    }

    nonisolated(nonsending) func waitToSend(below: Int, operation: String) async throws(LoopError) {
        if lc_stream_send_waits(stream) { throw .busy(operation: operation) }
        lc_stream_prepare_send(stream)
        let waited = await waitToSend { lc_stream_wait_send(stream, $0, below) }
        if waited < 0 { throw LoopError(core: waited, operation: operation) }
        if lc_stream_take_send_cancelled(stream) { throw .cancelled(operation: operation) }
        if lc_loop_is_closed(core.loop) { throw .connectionClosed(operation: operation) }
        let error = lc_stream_send_error(stream)
        if error < 0, operation != "connect" { throw LoopError(core: error, operation: operation) }
    }

    override func cancelSend() {
        let token = lc_stream_send_token(stream)
        core.cancelSoon { lc_stream_cancel_send(self.stream, token) }
    }

    // MARK: Close

    /// Closes politely: sends what is queued, then closes the descriptor. Returns once it is closed. A read that waits
    /// throws `.connectionClosed`. Calling it again does nothing.
    nonisolated(nonsending) public func close() async {
        guard core.isOnLoop else { return abort() }
        if lc_stream_close(stream, false, false) == 0 { return }
        if await waitUncancelled({ lc_stream_wait_closed(stream, $0) }) == -EBUSY {
            // Somebody else waits for the close already, and passes the word on.
            _ = await waitUncancelled {
                useRare().closers.append(Waiter(word: $0))
                return 0
            }
            return
        }
        guard let rare else { return }
        let closers = rare.closers
        rare.closers = []
        for closer in closers { closer.resume() }
    }

    func useRare() -> Rare {
        if let rare { return rare }
        let made = Rare()
        rare = made
        return made
    }

    /// Closes politely without waiting for it. Any thread.
    public func closeSoon() {
        guard core.isOnLoop else { return core.cancelSoon { self.closeSoon() } }
        _ = lc_stream_close(stream, false, false)
    }

    /// Closes at once; what is queued is dropped. Any thread.
    /// - Parameter reset: The peer sees a reset instead of an end.
    public func abort(reset: Bool = false) {
        guard core.isOnLoop else { return core.cancelSoon { self.abort(reset: reset) } }
        _ = lc_stream_close(stream, true, reset)
    }
}
