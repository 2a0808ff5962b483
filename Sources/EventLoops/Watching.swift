// SPDX-License-Identifier: Apache-2.0
//
// Watching.swift: callbacks that run for as long as a descriptor is ready.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What a descriptor is watched for. An end, a hang-up or an error is both.
public enum WatchDirection: Sendable, Hashable {
    /// There is something to read, or a connection to accept.
    case read
    /// There is room to write.
    case write
}

/// Names one call of ``Loop/watch(_:_:_:)``. Dropping it changes nothing: the watch lasts.
public struct WatchHandle: Sendable {
    let watcher: Watcher

    /// Ends the watch, unless it was replaced or has ended, and frees the callback and what it captured. On the loop's
    /// thread, or it traps.
    public func cancel() { watcher.end() }

    /// Whether the callback can still run. On the loop's thread.
    public var isActive: Bool { watcher.body != nil }
}

extension Loop {
    /// Runs `body` whenever `descriptor` is ready, for as long as it is watched: once per pass, again and again, until
    /// it has read what there is (level-triggered).
    ///
    /// It may run when there is nothing to read after all, so the descriptor should be non-blocking. What it throws goes
    /// to ``onUnhandledError``, and the watch goes on. A second call for the same direction replaces the callback; an
    /// event that was queued for the old one reaches neither. The other direction is untouched.
    ///
    /// Call ``unwatch(_:_:)`` before you close the descriptor. If it turns out to be closed when the callback returns,
    /// the watch ends, and ``onUnhandledError`` is told; if it is closed while nothing happens, nobody is told.
    ///
    /// On the loop's thread, or before the loop runs. The loop does not own the descriptor. Each event costs one poll in
    /// the ring, or one change of the selector. Source: asyncio's `add_reader` and `add_writer`.
    /// - Throws: `.notPollable`, `.ownedByTransport`; `.busy` while a task waits in ``readable(_:)`` or ``writable(_:)``
    ///   for the same (as do those while it is watched); `.closed`, `.forked`, `.wrongThread`; `.io`, with `EBADF` for a
    ///   descriptor that is not open.
    @discardableResult
    public func watch(
        _ descriptor: Int32, _ direction: WatchDirection, _ body: @escaping () throws -> Void
    ) throws(LoopError) -> WatchHandle {
        try core.watch(descriptor, direction, body)
    }

    /// Ends a watch. Its callback does not run any more, not even for an event that was queued in this pass. On the
    /// loop's thread, or it traps. Source: asyncio's `remove_reader` and `remove_writer`.
    /// - Returns: Whether the descriptor was watched in this direction. False on a closed loop.
    @discardableResult
    public func unwatch(_ descriptor: Int32, _ direction: WatchDirection) -> Bool {
        core.unwatch(descriptor, direction)
    }
}

/// A callback at a descriptor. The operation keeps it, from the watch until its last delivery. On the loop's thread.
final class Watcher: @unchecked Sendable {
    /// Not a reference, so that a handle that is kept for long keeps no loop.
    private let loop: UInt64
    fileprivate let op: UnsafeMutablePointer<lc_op>
    /// `nil`: over.
    fileprivate(set) var body: (() throws -> Void)?
    /// Told in place of the loop's hook.
    fileprivate var onFailure: ((LoopError) -> Void)?

    fileprivate init(
        _ loop: OpaquePointer, _ op: UnsafeMutablePointer<lc_op>, _ body: @escaping () throws -> Void,
        _ onFailure: ((LoopError) -> Void)?
    ) {
        self.loop = lc_loop_number(loop)
        self.op = op
        self.body = body
        self.onFailure = onFailure
    }

    fileprivate static func at(_ place: UnsafeRawPointer?) -> Watcher? {
        place.map { Unmanaged<Watcher>.fromOpaque($0).takeUnretainedValue() }
    }

    /// The operation is delivered once more, unless it is being delivered now, and frees us then.
    fileprivate func end() {
        guard let loop = lc_loop_numbered(loop) else { return }
        precondition(
            lc_loop_current() == loop || !lc_loop_is_running(loop),
            "End a watch on its loop's thread, or with callSoonThreadsafe(_:).")
        if lc_loop_is_forked(loop) { return }
        guard let body = body.take() else { return }
        let onFailure = onFailure.take()
        lc_op_unwatch(loop, op)
        withExtendedLifetime((body, onFailure)) {}  // what it captured may call back in
    }

    /// Gives the operation back. It is not with the kernel, nor on a list.
    fileprivate func free(in loop: OpaquePointer) {
        let body = body.take()
        lc_op_unwatch(loop, op)
        if !lc_loop_is_closed(loop) { lc_op_release(loop, op) }
        Unmanaged.passUnretained(self).release()
        withExtendedLifetime(body) {}
    }
}

extension LoopCore {
    /// - Parameter onFailure: Told that the watch has ended since there is no room for it in the kernel, which shows
    ///   only later. Without it the loop's hook is.
    func watch(
        _ descriptor: Int32, _ direction: WatchDirection, onFailure: ((LoopError) -> Void)? = nil,
        _ body: @escaping () throws -> Void
    ) throws(LoopError) -> WatchHandle {
        try check("watch")
        guard let op = lc_op_make(loop) else { throw .io(IOError(errno: ENOMEM, operation: "watch")) }
        let before = Watcher.at(lc_op_watcher(loop, descriptor, direction == .write))
        let watcher = Watcher(loop, op, body, onFailure)
        let place = Unmanaged.passRetained(watcher)
        let result = lc_op_watch(loop, op, descriptor, direction == .write, place.toOpaque())
        guard result == 0 else {
            place.release()
            lc_op_release(loop, op)
            throw watchError(result, descriptor)
        }
        before?.end()
        return WatchHandle(watcher: watcher)
    }

    func unwatch(_ descriptor: Int32, _ direction: WatchDirection) -> Bool {
        if lc_loop_is_closed(loop) || lc_loop_is_forked(loop) { return false }
        precondition(
            isOnLoop || !lc_loop_is_running(loop),
            "End a watch on its loop's thread, or with callSoonThreadsafe(_:).")
        guard let watcher = Watcher.at(lc_op_watcher(loop, descriptor, direction == .write)) else { return false }
        watcher.end()
        return true
    }

    /// One answer to a watcher's operation, which is then asked again: a multishot poll of the ring has no level mode.
    func deliverWatched(_ op: UnsafeMutablePointer<lc_op>) {
        guard let watcher = Watcher.at(op.pointee.address) else { return }
        guard let body = watcher.body, !lc_loop_is_closed(loop) else { return watcher.free(in: loop) }
        if op.pointee.result < 0 { return failWatch(watcher, op.pointee.result) }
        do { try body() } catch { report(error, "callback of a watched descriptor", descriptor: op.pointee.fd) }
        guard watcher.body != nil else { return watcher.free(in: loop) }
        let result = lc_op_watch_again(loop, op)
        if result < 0 { failWatch(watcher, result) }
    }

    private func failWatch(_ watcher: Watcher, _ result: Int32) {
        let descriptor = watcher.op.pointee.fd
        let error = watchError(result, descriptor)
        let onFailure = watcher.onFailure
        watcher.free(in: loop)
        if let onFailure { return onFailure(error) }
        report(error, "watch of a descriptor, which has ended", descriptor: descriptor)
    }

    private func watchError(_ result: Int32, _ descriptor: Int32) -> LoopError {
        switch result {
        case -EPERM: .notPollable(descriptor: descriptor)
        case -EEXIST: .ownedByTransport(descriptor: descriptor)
        default: LoopError(core: result, operation: "watch")
        }
    }

    /// For what has to go on when a watch has failed: tries again once the kernel may have room.
    func retryWatch(_ body: @escaping () throws -> Void) throws(LoopError) {
        _ = try Self.callAt(loop, LoopInstant.now.advanced(by: .milliseconds(100)), body)
    }

    /// At the end of a close: those that no delivery has freed.
    func dropWatchers() {
        var descriptor: Int32 = 0
        while let watcher = Watcher.at(lc_op_watcher_left_over(loop, &descriptor)) { watcher.free(in: loop) }
    }
}
