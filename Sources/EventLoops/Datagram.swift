// SPDX-License-Identifier: Apache-2.0
//
// Datagram.swift: a datagram socket, used by tasks of its loop or by a handler.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A datagram that was received.
public struct Datagram: Sendable, Hashable {
    /// Empty for an empty datagram, which is no end.
    public var bytes: [UInt8]
    /// Who sent it, and where an answer goes.
    public var address: DatagramAddress
    /// Whether it was larger than there was room, and its end is lost.
    public var isTruncated: Bool
}

/// What was received into memory of the caller's.
public struct DatagramPart: Sendable, Hashable {
    /// Bytes written; 0 for an empty datagram.
    public var count: Int
    public var address: DatagramAddress
    /// Whether the datagram was larger than there was room, and its end is lost.
    public var isTruncated: Bool
}

/// A UDP or Unix datagram socket of a loop. Made with ``Loop/bindDatagram(to:options:)`` and
/// ``Loop/connectDatagram(to:from:options:)``.
///
/// Call it on the loop's thread: from its tasks, callbacks and handlers. Elsewhere every member throws `.wrongThread`,
/// unless it says *any thread*. Once the loop is closed, every member throws `.closed`. A socket that is dropped without
/// ``close()`` is closed, once what is queued is out. Source: asyncio's `DatagramTransport`.
public final class DatagramSocket: WaitingPlace, @unchecked Sendable {
    let core: LoopCore
    private let datagram: OpaquePointer
    /// This end's address; the port is the real one if 0 was asked for.
    public let localAddress: DatagramAddress
    /// Where datagrams go by default, if anywhere.
    public let remoteAddress: DatagramAddress?
    /// Whether the kernel lets nothing through but what comes from ``remoteAddress``.
    public let isConnected: Bool

    /// More than this many bytes queued, eight more for each datagram: ``send(_:to:)`` waits, and a handler is told to
    /// pause.
    @exclusivity(unchecked) public var writeHighWaterMark = 64 * 1024
    /// At most so many bytes queued: sending goes on.
    @exclusivity(unchecked) public var writeLowWaterMark = 16 * 1024
    /// Told of errors in place of ``receive()``, which then waits on. A handler has a call of its own for them.
    public var onError: ((LoopError) -> Void)?

    /// What may still have something to tell. As long as there is anything, the core keeps this object alive.
    private struct Holds: OptionSet {
        let rawValue: UInt8
        /// The poll for reading is under way.
        static let read = Holds(rawValue: 1)
        /// The poll for writing is.
        static let write = Holds(rawValue: 2)
        /// A timer stands for it.
        static let retry = Holds(rawValue: 4)
        static let handler = Holds(rawValue: 8)
        static let closing = Holds(rawValue: 16)
    }

    private var handler: (any DatagramHandler)?
    /// The word of the task that waits for a datagram, or 0.
    private var receiver: UInt64 = 0
    private var receiveCancelled = false
    private var sendWaits: [SendWait] = []
    private var closers: [Waiter] = []
    private var holds: Holds = []
    /// How long to wait until the next attempt, after one that was said to succeed and did not.
    private var backoff: Duration?
    private var isKicked = false
    private var isDelivering = false
    private var isReadingPaused = false
    private var isWritingPaused = false
    private var isClosing = false
    private var isAborting = false
    private var hasEnded = false

    init(
        adopting descriptor: Int32, on loop: any Loop, options: DatagramOptions, remote: DatagramAddress?,
        isConnected: Bool
    ) throws(LoopError) {
        try loop.core.check("adopt a datagram socket")
        var datagram: OpaquePointer?
        let result = lc_datagram_adopt(
            loop.core.loop, descriptor, options.maximumDatagramSize, options.receiveBatch, &datagram)
        guard result == 0, let datagram else { throw LoopError(core: result, operation: "adopt a datagram socket") }
        core = loop.core
        self.datagram = datagram
        localAddress = DatagramAddress(localTo: descriptor) ?? DatagramAddress(core: lc_address())
        remoteAddress = remote
        self.isConnected = isConnected && remote != nil
        super.init()
    }

    /// Takes over a datagram socket, which belongs to this object from here on. Of the options, the sizes that are not
    /// the kernel's hold.
    /// - Throws: `.io` if it is none; the descriptor is the caller's then.
    public convenience init(
        adopting descriptor: Int32, on loop: any Loop, options: DatagramOptions = DatagramOptions()
    ) throws(LoopError) {
        let remote = DatagramAddress(remoteTo: descriptor)
        try self.init(adopting: descriptor, on: loop, options: options, remote: remote, isConnected: remote != nil)
    }

    deinit {
        let (core, datagram) = (core, datagram)
        if core.isOnLoop || !lc_loop_is_running(core.loop) {
            lc_datagram_release(datagram)
        } else {
            let address = UInt(bitPattern: datagram)
            core.cancelSoon { lc_datagram_release(OpaquePointer(bitPattern: address)) }
        }
    }

    func keepPath() { lc_datagram_keep_path(datagram) }

    /// The descriptor, still owned by the socket.
    public var descriptor: Int32 { lc_datagram_fd(datagram) }
    /// Whether the descriptor is closed. On the loop's thread.
    public var isClosed: Bool { hasEnded || lc_loop_is_closed(core.loop) }
    /// Bytes queued and not yet accepted by the kernel, and eight more for each datagram.
    public var unsentByteCount: Int { lc_datagram_unsent(datagram) }

    private func check(_ operation: StaticString) throws(LoopError) {
        try core.check(operation)
        if isClosing { throw .connectionClosed(operation: "\(operation)") }
    }

    func change(_ operation: String, _ body: (Int32) -> Int32) throws(LoopError) {
        try check("change a datagram socket")
        let result = body(descriptor)
        if result < 0 { throw .io(IOError(errno: result, operation: operation)) }
    }

    // MARK: Receive

    /// Receives the next datagram, suspending until there is one.
    /// - Throws: `.cancelled` when the task is, and then no datagram is lost. `.busy` while another receive waits, or a
    ///   handler is told. `.connectionClosed`; `.closed`. `.io` with an error of the socket, as that of an earlier
    ///   datagram that nobody received (`ECONNREFUSED`): once, and the next receive goes on.
    /// - Note: Allocates the bytes. Enters the kernel at once for as many datagrams as there are, up to
    ///   ``DatagramOptions/receiveBatch``, and hands them out one by one. Source: asyncio's `sock_recvfrom`.
    nonisolated(nonsending) public func receive() async throws(LoopError) -> Datagram {
        let view = try await next()
        return Datagram(
            bytes: Array(UnsafeRawBufferPointer(start: view.bytes, count: Int(view.length))),
            address: DatagramAddress(core: view.address.pointee), isTruncated: view.truncated)
    }

    /// The same into `buffer`, without an allocation.
    /// - Parameter count: Bytes of the buffer to use; 0 means all of it.
    nonisolated(nonsending) public func receive(
        into buffer: UnsafeMutableRawBufferPointer, count: Int = 0
    ) async throws(LoopError) -> DatagramPart {
        precondition(count >= 0 && count <= buffer.count, "receive(into:count:): the buffer is smaller than count.")
        return copy(
            try await next(), into: UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(room(count, buffer.count))))
    }

    /// The same into an array, which keeps its length.
    nonisolated(nonsending) public func receive(
        into buffer: inout [UInt8], count: Int = 0
    ) async throws(LoopError) -> DatagramPart {
        precondition(count >= 0 && count <= buffer.count, "receive(into:count:): the buffer is smaller than count.")
        let view = try await next()
        let room = room(count, buffer.count)
        return buffer.withUnsafeMutableBytes {
            copy(view, into: UnsafeMutableRawBufferPointer(rebasing: $0.prefix(room)))
        }
    }

    private func room(_ count: Int, _ all: Int) -> Int { count == 0 ? all : count }

    private func copy(_ view: lc_datagram_view, into buffer: UnsafeMutableRawBufferPointer) -> DatagramPart {
        let count = min(Int(view.length), buffer.count)
        if count > 0 { buffer.baseAddress!.copyMemory(from: view.bytes, byteCount: count) }
        return DatagramPart(
            count: count, address: DatagramAddress(core: view.address.pointee),
            isTruncated: view.truncated || count < Int(view.length))
    }

    /// - Returns: A view that holds until the next suspension.
    nonisolated(nonsending) private func next() async throws(LoopError) -> lc_datagram_view {
        var view = lc_datagram_view()
        while true {
            try check("receive")
            guard core.isOnLoop else { throw core.wrongThread("receive") }
            if handler != nil || receiver != 0 { throw .busy(operation: "receive") }
            let result = lc_datagram_take(datagram, false, &view)
            if result == 1 { return view }
            if result != -EAGAIN {
                let error = LoopError.io(IOError(errno: result, operation: "receive"))
                guard let onError else { throw error }
                onError(error)
                continue
            }
            lc_datagram_next_token(datagram)
            _ = await waitToReceive {
                receiver = $0
                poll(write: false)
                return 0
            }
            if receiveCancelled {
                receiveCancelled = false
                throw .cancelled(operation: "receive")
            }
        }
    }

    override func cancelReceive() {
        let token = lc_datagram_token(datagram)
        core.cancelSoon { [self] in
            guard receiver != 0, lc_datagram_token(datagram) == token else { return }
            receiveCancelled = true
            cancelPoll(write: false)
            wakeReceiver()
        }
    }

    private func wakeReceiver() {
        let word = receiver
        if word == 0 { return }
        receiver = 0
        lc_datagram_next_token(datagram)
        core.resume(word)
    }

    // MARK: Send

    /// Sends a datagram: now, or after those that are queued because the kernel had no room. Empty ones are sent too.
    ///
    /// Suspends only while more than ``writeHighWaterMark`` bytes are queued. Source: asyncio's `sendto` and
    /// `sock_sendto`.
    /// - Parameter address: Where to; `nil` for ``remoteAddress``.
    /// - Throws: `.connectedElsewhere`, `.datagramTooLarge`; `.io` with what the kernel has against it, as `EDESTADDRREQ`
    ///   where there is no address. `.connectionClosed`, `.closed`, `.wrongThread`. `.cancelled` if the task is while it
    ///   waits, in which case the datagram is queued nevertheless. What goes wrong with a queued datagram is told to
    ///   whoever receives.
    nonisolated(nonsending) public func send(
        _ bytes: [UInt8], to address: DatagramAddress? = nil
    ) async throws(LoopError) {
        try send(copying: bytes.span.bytes, to: address)
        if isOverHighWaterMark { try await waitToSend(below: lowWaterMark, "send") }
    }

    /// The same to an IP address, which is read from its text for each datagram.
    nonisolated(nonsending) public func send(_ bytes: [UInt8], to address: SocketAddress) async throws(LoopError) {
        try await send(bytes, to: DatagramAddress(address))
    }

    /// The same without waiting, however many are queued. For handlers, and before the loop runs. Allocates nothing
    /// unless the queue has to grow.
    public func send(copying bytes: RawSpan, to address: DatagramAddress? = nil) throws(LoopError) {
        try check("send")
        if let address, let remoteAddress, address != remoteAddress {
            throw .connectedElsewhere(to: "\(remoteAddress)", not: "\(address)")
        }
        let result = bytes.withUnsafeBytes { bytes in
            withCore(isConnected ? nil : address ?? remoteAddress) {
                lc_datagram_send(datagram, bytes.baseAddress, bytes.count, $0)
            }
        }
        if lc_datagram_has_error(datagram) { kick() }
        switch result {
        case 0: return
        case 1: queued()
        case -EMSGSIZE: throw .datagramTooLarge(byteCount: bytes.byteCount)
        default: throw .io(IOError(errno: result, operation: "send"))
        }
    }

    /// Waits until the kernel has accepted everything that was sent.
    nonisolated(nonsending) public func flush() async throws(LoopError) {
        try check("flush")
        if unsentByteCount > 0 { try await waitToSend(below: 0, "flush") }
    }

    // Below 0 is 0: an empty queue is never too much, and always few enough.
    private var isOverHighWaterMark: Bool { unsentByteCount > max(0, writeHighWaterMark) }
    private var lowWaterMark: Int { max(0, writeLowWaterMark) }

    private func queued() {
        if !holds.contains(.retry) { poll(write: true) }
        guard let handler, !isWritingPaused, isOverHighWaterMark else { return }
        isWritingPaused = true
        handler.pauseWriting(self)
    }

    private func writable() {
        let progress = lc_datagram_flush(datagram) == 1
        if progress { backoff = nil }
        if lc_datagram_has_error(datagram) { kick() }
        if unsentByteCount > 0 {
            // A Unix socket that is not connected is said to have room as long as its own buffer has, also while the
            // receiver's has none. To poll again would be to ask without end.
            if progress { poll(write: true) } else { retryLater() }
        }
        tellSenders()
    }

    private func retryLater() {
        let delay = backoff ?? .milliseconds(1)
        backoff = min(delay * 2, .milliseconds(64))
        let timer = try? LoopCore.callAt(core.loop, .now.advanced(by: delay)) { [self] in
            letGo(.retry)
            if unsentByteCount > 0 { writable() }
            finishClosing()
        }
        if timer == nil { poll(write: true) } else { hold(.retry) }
    }

    private func tellSenders() {
        if isWritingPaused && unsentByteCount <= lowWaterMark {
            isWritingPaused = false
            handler?.resumeWriting(self)
        }
        while let index = sendWaits.firstIndex(where: { unsentByteCount <= $0.below || hasEnded }) {
            sendWaits.remove(at: index).end()
        }
    }

    nonisolated(nonsending) private func waitToSend(below: Int, _ operation: String) async throws(LoopError) {
        guard core.isOnLoop else { throw core.wrongThread(operation) }
        let wait = SendWait(self, below: below)
        await wait.wait()
        if wait.isCancelled { throw .cancelled(operation: operation) }
        if lc_loop_is_closed(core.loop) { throw .closed }
        if isAborting { throw .connectionClosed(operation: operation) }
    }

    /// One wait for room, as its cancel sees it. On the loop's thread.
    private final class SendWait: WaitingPlace, @unchecked Sendable {
        let socket: DatagramSocket
        let below: Int
        private var word: UInt64 = 0
        private(set) var isCancelled = false

        init(_ socket: DatagramSocket, below: Int) {
            self.socket = socket
            self.below = below
        }

        nonisolated(nonsending) func wait() async {
            _ = await waitToSend {
                word = $0
                socket.sendWaits.append(self)
                return 0
            }
        }

        func end() { socket.core.resume(word) }

        override func cancelSend() {
            socket.core.cancelSoon { [self] in
                guard let index = socket.sendWaits.firstIndex(where: { $0 === self }) else { return }
                socket.sendWaits.remove(at: index)
                isCancelled = true
                end()
            }
        }
    }

    // MARK: Handlers

    /// Tells `handler` what arrives, in place of ``receive()``. It and the socket stay alive until the socket is closed.
    /// - Throws: `.busy` while a receive waits; `.connectionClosed`, `.closed`, `.wrongThread`.
    public func start(_ handler: any DatagramHandler) throws(LoopError) {
        try check("start")
        if receiver != 0 { throw .busy(operation: "start") }
        self.handler = handler
        hold(.handler)
        isReadingPaused = false
        want()
    }

    /// Tells the handler nothing of what arrives until ``resumeReading()``. Datagrams wait in the kernel, which drops
    /// those it has no room for; some may have been received already, and are told first then.
    public func pauseReading() throws(LoopError) {
        try check("pauseReading")
        isReadingPaused = true
        if receiver == 0 { cancelPoll(write: false) }
    }

    public func resumeReading() throws(LoopError) {
        try check("resumeReading")
        isReadingPaused = false
        want()
    }

    private func want() {
        if handler == nil || isReadingPaused || isDelivering { return }
        if lc_datagram_has_news(datagram) { kick() } else { poll(write: false) }
    }

    private func deliverReceived() {
        if isDelivering { return }
        var view = lc_datagram_view()
        isDelivering = true
        while let handler, !isReadingPaused, !isClosing {
            let result = lc_datagram_take(datagram, true, &view)
            if result == 1 {
                handler.datagramReceived(
                    RawSpan(_unsafeStart: view.bytes, byteCount: Int(view.length)),
                    from: DatagramAddress(core: view.address.pointee), isTruncated: view.truncated, on: self)
            } else if result == -EAGAIN {
                break
            } else {
                handler.errorReceived(.io(IOError(errno: result, operation: "receive")), on: self)
            }
        }
        isDelivering = false
        if handler != nil && !isReadingPaused && !isClosing { poll(write: false) }
    }

    // MARK: Close

    /// Closes politely: sends what is queued, then closes the descriptor. Returns once it is closed. A receive that waits
    /// throws `.connectionClosed`; a handler is told nothing more but that the connection is lost. Calling it again waits
    /// as well.
    nonisolated(nonsending) public func close() async {
        guard core.isOnLoop else { return closeSoon() }
        if hasEnded { return }
        beginClosing(abort: false)
        _ = await waitUncancelled {
            closers.append(Waiter(word: $0))
            return 0
        }
    }

    /// Closes politely without waiting for it. Any thread.
    public func closeSoon() { onLoop { $0.beginClosing(abort: false) } }

    /// Closes at once; what is queued is dropped. Any thread.
    public func abort() { onLoop { $0.beginClosing(abort: true) } }

    private func onLoop(_ body: @escaping @Sendable (DatagramSocket) -> Void) {
        if core.isOnLoop { return body(self) }
        if lc_loop_is_running(core.loop) { return core.cancelSoon { body(self) } }
        if !lc_loop_is_closed(core.loop) && !lc_loop_is_forked(core.loop) { body(self) }
    }

    private func beginClosing(abort: Bool) {
        if hasEnded || isAborting || (isClosing && !abort) { return }
        isClosing = true
        if abort {
            isAborting = true
            lc_datagram_drop_queue(datagram)
        }
        hold(.closing)
        cancelPoll(write: false)
        if unsentByteCount == 0 { cancelPoll(write: true) }
        kick()
    }

    /// Closes the descriptor, once all is said and no poll is under way.
    private func finishClosing() {
        guard isClosing, !hasEnded, !isDelivering, unsentByteCount == 0, holds.isDisjoint(with: [.read, .write]) else {
            return
        }
        lc_datagram_close(datagram)
        ended()
    }

    /// The descriptor is closed: tells whoever waits.
    private func ended() {
        isClosing = true
        hasEnded = true
        onError = nil
        handler.take()?.connectionLost(self)
        wakeReceiver()
        tellSenders()
        while !closers.isEmpty { core.resume(closers.removeFirst().word) }
        letGo([.handler, .closing])
    }

    /// The loop is closed, and with it the descriptor.
    func loopClosed() {
        if !hasEnded {
            if lc_loop_is_forked(core.loop) {
                // Of the parent's tasks and handlers, none runs here.
                isClosing = true
                hasEnded = true
                handler = nil
            } else {
                ended()
            }
        }
        letGo([.read, .write, .retry, .handler, .closing])
    }

    // MARK: The core

    private func hold(_ reason: Holds) {
        if holds.isEmpty { lc_datagram_set_object(datagram, Unmanaged.passRetained(self).toOpaque()) }
        holds.insert(reason)
    }

    private func letGo(_ reasons: Holds) {
        if holds.isDisjoint(with: reasons) { return }
        holds.subtract(reasons)
        if !holds.isEmpty { return }
        lc_datagram_set_object(datagram, nil)
        Unmanaged.passUnretained(self).release()
    }

    private func poll(write: Bool) {
        let reason: Holds = write ? .write : .read
        if holds.contains(reason) { return }
        hold(reason)
        lc_datagram_poll(datagram, write)
    }

    private func cancelPoll(write: Bool) {
        if holds.contains(write ? .write : .read) { lc_datagram_cancel_poll(datagram, write) }
    }

    /// A poll is over.
    static func deliver(_ op: UnsafeMutablePointer<lc_op>) {
        var write = false
        let datagram = lc_datagram_polled(op, &write)
        guard let object = lc_datagram_object(datagram) else { return }
        let socket = Unmanaged<DatagramSocket>.fromOpaque(object).takeUnretainedValue()
        withExtendedLifetime(socket) { socket.polled(write) }
    }

    /// The caller keeps us alive.
    private func polled(_ write: Bool) {
        if lc_loop_is_closed(core.loop) { return loopClosed() }
        letGo(write ? .write : .read)
        if !write {
            tellReceiver()
        } else if unsentByteCount > 0 {
            writable()
        }
        finishClosing()
    }

    private func tellReceiver() {
        if receiver != 0 { return wakeReceiver() }
        if handler != nil { deliverReceived() }
    }

    /// Looks once more at what there is to tell, in a later pass: never within a call of the user's.
    private func kick() {
        if isKicked { return }
        isKicked = (try? LoopCore.callSoon(core.loop) { [self] in kicked() }) != nil
    }

    private func kicked() {
        isKicked = false
        if isClosing {
            wakeReceiver()
            if isAborting { tellSenders() }
            return finishClosing()
        }
        if receiver != 0 || handler != nil { return tellReceiver() }
        guard let onError else { return }
        let error = lc_datagram_take_error(datagram)
        if error < 0 { onError(.io(IOError(errno: error, operation: "receive"))) }
    }
}

extension LoopCore {
    /// At the end of a close: those that no delivery has told.
    func dropDatagramSockets() {
        var place: OpaquePointer?
        while let datagram = lc_datagram_left_over(loop, &place) {
            let object = lc_datagram_object(datagram)!
            let socket = Unmanaged<DatagramSocket>.fromOpaque(object).takeUnretainedValue()
            withExtendedLifetime(socket) { socket.loopClosed() }
        }
    }
}
