// SPDX-License-Identifier: Apache-2.0
//
// Handle.swift: what names a queued callback or timer.

import CLoopCore

/// Names a callback that was queued, or a timer. A value: slot and generation, so a handle of a callback that has run
/// never reaches another one.
public struct Handle: Sendable {
    let core: LoopCore
    let id: lc_call_id

    /// Makes sure that the callback does not run, and frees it and what it captured, at once. Calling it again, or
    /// after the callback has run, does nothing. On the loop's thread, or it traps; O(log n) for a timer.
    public func cancel() { core.cancel(self) }

    /// Whether the callback is still to run. On the loop's thread.
    public var isPending: Bool { lc_call_is_pending(core.loop, id) }
}
