// SPDX-License-Identifier: Apache-2.0
//
// ThreadWait.swift: a task of the loop that waits for what another thread comes to.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A wait that another thread ends, or a cancel, or the close of the loop: whichever is first.
///
/// All of it is on the loop's thread, but for ``arrive()``. Whoever arrives does not resume the task: it posts to the
/// loop, which does, so the task never runs elsewhere. The post is made before the wait begins, so that an arrival
/// cannot fail for want of memory.
class ThreadWait: WaitingPlace, @unchecked Sendable {
    enum Ending {
        case arrived
        case timedOut
        case cancelled
        case closed
    }

    let core: LoopCore
    private(set) var ending: Ending?
    /// 0: nobody waits.
    private var waiter: UInt64 = 0
    /// The loop's until the wait has begun, then of whoever arrives.
    private var post: UnsafeMutablePointer<lc_post>?

    init(_ core: LoopCore) { self.core = core }

    /// The wait has ended. True: if nobody has arrived, nobody will any more.
    func ended(_ ending: Ending) -> Bool { false }

    /// Goes first in what is given to `waitToReceive`. A negated errno if there is no memory.
    final func begin(_ word: UInt64) -> Int32 {
        guard let post = lc_post_make() else { return -ENOMEM }
        Callback.put({ self.end(.arrived) }, lc_post_place(post))
        self.post = post
        waiter = word
        core.services.waits[ObjectIdentifier(self)] = self
        return 0
    }

    /// Ends the wait, if it still lasts. Once, on any thread. What was written before is seen by whoever waited.
    final func arrive() {
        if let post, lc_loop_post(core.loop, post) < 0 { dropPost() }
    }

    override final func cancelReceive() { core.cancelSoon { self.end(.cancelled) } }

    final func end(_ ending: Ending) {
        guard waiter != 0 else { return }
        let word = waiter
        waiter = 0
        self.ending = ending
        core.services.waits[ObjectIdentifier(self)] = nil
        let isLast = ended(ending)
        if isLast && ending != .arrived { dropPost() }
        core.resume(word)
    }

    private func dropPost() {
        guard let post = post.take() else { return }
        let callback = Callback.take(lc_post_place(post))
        lc_post_free(post)
        withExtendedLifetime(callback) {}
    }

    /// How the wait went for its task. Nothing: somebody arrived, or it timed out.
    final func check(_ result: Int32, _ operation: String) throws(LoopError) {
        if result < 0 { throw LoopError(core: result, operation: operation) }
        switch ending {
        case .arrived, .timedOut: return
        case .cancelled: throw .cancelled(operation: operation)
        case .closed, nil: throw .closed
        }
    }
}
