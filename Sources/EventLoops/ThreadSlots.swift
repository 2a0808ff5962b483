// SPDX-License-Identifier: Apache-2.0
//
// ThreadSlots.swift: what a thread remembers of policies: their current loops, and who asked for the loop being made.

import CLoopCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Names a policy in the slots of threads, which outlive it. Not the policy's address, which a later policy may get.
final class SlotOwner: Sendable {
    private let gone = Atomic(false)
    /// Whether the policy is gone.
    var isGone: Bool { gone.load(ordering: .relaxed) }
    func end() { gone.store(true, ordering: .relaxed) }
}

/// One thread's slots. Made when first needed and freed, with the loops in it, when the thread ends.
///
/// Only its thread reaches it, so there is no lock that a fork could catch closed.
final class ThreadSlots {
    /// What a policy's ``DefaultLoopPolicy/setCurrentLoop(_:)`` left here. No entry: it was never called.
    private struct Entry {
        let owner: SlotOwner
        let forkGeneration: UInt32
        let loop: (any Loop)?
    }

    enum Slot {
        case neverSet
        case set((any Loop)?)
    }

    private var entries: [Entry] = []
    /// The options of the ``Loops/run(on:options:_:)`` that is making its loop.
    var options: LoopOptions?
    /// The value of `LOOP_POLICY` while the policy it names is making a loop.
    var environmentName: String?

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let result = pthread_key_create(&key) { slots in
            if let slots { Unmanaged<ThreadSlots>.fromOpaque(slots).release() }
        }
        precondition(result == 0, "No key for thread-specific data is left (pthread_key_create).")
        return key
    }()

    private static var existing: ThreadSlots? {
        pthread_getspecific(key).map { Unmanaged<ThreadSlots>.fromOpaque($0).takeUnretainedValue() }
    }

    /// This thread's.
    static var current: ThreadSlots {
        if let existing { return existing }
        let slots = ThreadSlots()
        let result = pthread_setspecific(key, Unmanaged.passRetained(slots).toOpaque())
        precondition(result == 0, "No memory for thread-specific data (pthread_setspecific).")
        return slots
    }

    /// Frees this thread's slot of a policy that is going. Those of other threads go when these next use a slot.
    static func forget(_ owner: SlotOwner) {
        owner.end()
        existing?.replace(entryOf: owner, with: nil)
    }

    func slot(of owner: SlotOwner) -> Slot {
        // What was set before a fork belongs to the parent.
        guard let entry = entries.first(where: { $0.owner === owner }), entry.forkGeneration == lc_fork_generation()
        else { return .neverSet }
        return .set(entry.loop)
    }

    func set(_ loop: (any Loop)?, of owner: SlotOwner) {
        replace(entryOf: owner, with: Entry(owner: owner, forkGeneration: lc_fork_generation(), loop: loop))
    }

    private func replace(entryOf owner: SlotOwner, with entry: Entry?) {
        let old = entries
        entries = old.filter { !$0.owner.isGone && $0.owner !== owner }
        if let entry { entries.append(entry) }
        // The last reference to a loop may go here, and what its callbacks captured may call back in: only now.
        withExtendedLifetime(old) {}
    }
}
