// SPDX-License-Identifier: Apache-2.0
//
// Handling.swift: how a connection delivers to its handler.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension Connection {
    /// Delivers what arrives to `handler`, in place of ``read()``. The handler, and with it the connection, stays alive
    /// until the connection is lost. Called again, it puts another handler in the first one's place, also from within a
    /// callback: what comes next is the new one's.
    ///
    /// ``StreamHandler/made(_:)`` is called before it returns.
    /// - Throws: `.busy` while a read waits; `.connectionClosed` if it is closed; `.wrongThread`.
    public func start(_ handler: any StreamHandler) throws(LoopError) {
        try core.check("start")
        if isClosing { throw .connectionClosed(operation: "start") }
        if self.handler == nil {
            let result = lc_stream_start_receiving(stream)
            if result < 0 { throw LoopError(core: result, operation: "start") }
            lc_stream_owe_loss(stream)
            // One retain at start, one release at the end.
            _ = Unmanaged.passRetained(self)
        }
        self.handler = handler
        attempt("made") { () throws in try handler.made(self) }
    }

    /// Whether it is closed, or will be once what is queued is sent.
    public var isClosing: Bool { lc_stream_is_closing(stream) }

    /// Delivers nothing more to the handler until ``resumeReading()``; the peer feels it once the kernel's buffer is
    /// full. What the kernel has handed over already is kept, the end included. Does nothing on a connection that is
    /// closing, paused or without a handler.
    public func pauseReading() {
        if core.isOnLoop, handler != nil { lc_stream_pause_receiving(stream) }
    }

    /// Delivers again, from the next pass on; what came meanwhile first. Does nothing if it delivers already.
    public func resumeReading() {
        if core.isOnLoop, handler != nil { lc_stream_resume_receiving(stream) }
    }

    /// Whether a handler is told what arrives: not while it is paused, and not once the connection closes.
    public var isReading: Bool { lc_stream_is_receiving(stream) }

    /// What a handler has not used of a lease is delivered next, also if that is to another handler, or after a pause.
    func giveBack(_ bytes: consuming ReceivedBytes, used: Int) {
        lc_stream_give_back(stream, bytes.release(), UInt32(used))
    }

    static func of(_ stream: OpaquePointer?) -> Connection? { uncounted(lc_stream_word(stream))?.takeUnretainedValue() }

    /// The connection whose handler is told; kept by the reference that ``start(_:)`` counted.
    @inline(__always)
    private static func uncounted(_ word: UInt64) -> Unmanaged<Connection>? {
        guard let raw = UnsafeRawPointer(bitPattern: UInt(word)) else { return nil }
        return Unmanaged<Connection>.fromOpaque(raw)
    }

    /// Without a reference counted for each delivery: the one there is goes when all has been said.
    @inline(__always)
    static func deliverReceived(_ word: UInt64) {
        guard let connection = uncounted(word) else { return }
        if connection._withUnsafeGuaranteedRef({ $0.deliverReceived() }) { connection.release() }
    }

    static func loopClosed(_ stream: OpaquePointer?) {
        guard let connection = uncounted(lc_stream_word(stream)) else { return }
        if connection._withUnsafeGuaranteedRef({ $0.lose(nil) }) { connection.release() }
    }

    /// - Returns: Whether the handler has been told of the loss.
    private func deliverReceived() -> Bool {
        guard let handler else { return false }
        var buffer: UnsafeMutablePointer<lc_buffer>?
        while self.handler === handler {
            let result = lc_stream_next(stream, &buffer)
            if result == 1 {
                do { try handler.received(ReceivedBytes(buffer.unsafelyUnwrapped), on: self) } catch {
                    return fail(error, "received")
                }
            } else if result == -EAGAIN {
                lc_stream_finish_delivery(stream)
                return false
            } else {
                return deliverEnd(result)
            }
        }
        // Another handler has come; the rest is its.
        return deliverReceived()
    }

    @inline(never)
    private func deliverEnd(_ result: Int32) -> Bool {
        switch result {
        case 0:
            lc_stream_pause_receiving(stream)
            do { try handler?.ended(self) } catch { return fail(error, "ended") }
            return false
        case -ESHUTDOWN:
            let error = lc_stream_send_error(stream)
            return lose(error == 0 || error == -ESHUTDOWN ? nil : LoopError(core: error, operation: "write"))
        default:
            _ = lc_stream_close(stream, true, false)
            return lose(LoopError(core: result, operation: "read"))
        }
    }

    /// A callback threw. The connection goes the way of one that broke.
    private func fail(_ error: any Error, _ callback: String) -> Bool {
        core.report(error, "StreamHandler.\(callback)")
        _ = lc_stream_close(stream, true, false)
        return lose(.handlerFailed(callback: callback, error: "\(error)"))
    }

    /// For callbacks whose errors do no harm to the connection.
    private func attempt(_ callback: StaticString, _ body: () throws -> Void) {
        do { try body() } catch { core.report(error, "StreamHandler.\(callback)") }
    }

    /// Tells the handler, once, and lets it go.
    /// - Returns: Whether it did, and then the connection may go as well.
    private func lose(_ error: LoopError?) -> Bool {
        guard let handler = handler.take() else { return false }
        lc_stream_pause_receiving(stream)
        lc_stream_set_word(stream, 0)
        attempt("lost") { () throws in try handler.lost(self, error: error) }
        if !lc_loop_is_closed(core.loop) { lc_stream_loss_told(stream) }
        rare?.onLoss.take()?()
        return true
    }

    // MARK: Writing

    /// More is queued than ``writeLimits`` allow. Told once, until there is room again.
    @usableFromInline
    func pauseWriting() {
        guard let handler, !isWritingPaused, lc_stream_send_error(stream) == 0 else { return }
        lc_stream_want_room(stream, writeLimits.low)
        attempt("pauseWriting") { () throws in try handler.pauseWriting(self) }
    }

    /// Until there is room again.
    var isWritingPaused: Bool { lc_stream_wants_room(stream) }

    func deliverRoom() {
        guard let handler, lc_stream_send_error(stream) == 0 else { return }
        attempt("resumeWriting") { () throws in try handler.resumeWriting(self) }
        // While it was told so, the limits may have changed.
        if isOverHighWaterMark { pauseWriting() }
    }
}
