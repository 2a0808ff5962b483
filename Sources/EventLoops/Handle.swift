// SPDX-License-Identifier: Apache-2.0
//
// Handle.swift: what names a queued callback or timer.

import CLoopCore

/// Names a callback that was queued, or a timer. A value: the loop's number, slot and generation, so a handle of a
/// callback that has run never reaches another one, and one that is kept for long keeps nothing alive.
public struct Handle: Sendable {
    /// Not a reference: handles are copied about, and counting that would cost more than what they are for.
    let loop: UInt64
    let id: lc_call_id

    @inline(__always)
    init(_ loop: UInt64, _ call: UnsafeMutablePointer<lc_call>) {
        self.loop = loop
        id = lc_call_id(slot: call.pointee.slot, generation: call.pointee.generation)
    }

    /// Makes sure that the callback does not run, and frees it and what it captured, at once. Calling it again, or
    /// after the callback has run, does nothing. On the loop's thread, or it traps; O(log n) for a timer.
    public func cancel() {
        guard let loop = lc_loop_numbered(loop) else { return }
        precondition(
            lc_loop_current() == loop || !lc_loop_is_running(loop),
            "Cancel a handle on its loop's thread, or with callSoonThreadsafe(_:).")
        if let call = lc_call_cancel_body(loop, id) { Callback.drop(lc_call_place(call)) }
    }

    /// Whether the callback is still to run. On the loop's thread.
    public var isPending: Bool {
        guard let loop = lc_loop_numbered(loop) else { return false }
        return lc_call_is_pending(loop, id)
    }
}
