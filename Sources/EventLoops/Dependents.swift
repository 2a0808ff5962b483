// SPDX-License-Identifier: Apache-2.0
//
// Dependents.swift: what has to be told when its loop is closed, and tasks that wait for such a thing.

import CLoopCore

/// Something that belongs to a loop and ends with it.
protocol Dependent: AnyObject {
    /// The loop is closed. Comes before any ``loopClosed(isForked:)``.
    func loopCloses(isForked: Bool)
    /// Ends waits, and frees what the loop owned. In a forked child, nothing that the parent has may be touched.
    func loopClosed(isForked: Bool)
}

extension Dependent {
    func loopCloses(isForked: Bool) {}
}

/// The dependents of one loop, which does not keep them. Any thread.
final class Dependents: Sendable {
    private struct Entry { weak var value: (any Dependent)? }
    private let entries = Lock<[ObjectIdentifier: Entry]>([:])

    func add(_ dependent: any Dependent) {
        entries.withLock { $0[ObjectIdentifier(dependent)] = Entry(value: dependent) }
    }

    /// Also in its deinit.
    func remove(_ dependent: any Dependent) {
        entries.withLock { _ = $0.removeValue(forKey: ObjectIdentifier(dependent)) }
    }

    func take() -> [any Dependent] {
        entries.withLock { entries in
            defer { entries = [:] }
            return entries.values.compactMap(\.value)
        }
    }

    static func tell(_ dependents: [any Dependent], isForked: Bool) {
        for dependent in dependents { dependent.loopCloses(isForked: isForked) }
        for dependent in dependents { dependent.loopClosed(isForked: isForked) }
    }
}

/// Tasks that wait for the next event of something, in order. On the loop's thread.
final class WaitList: @unchecked Sendable {
    fileprivate let core: LoopCore
    private var waits: [ListedWait] = []

    init(_ core: LoopCore) { self.core = core }

    var isEmpty: Bool { waits.isEmpty }

    /// - Throws: `.cancelled`; `.closed` if the loop is closed meanwhile; what ``failAll(_:)`` was given.
    nonisolated(nonsending) func wait(_ operation: StaticString) async throws(LoopError) {
        let wait = ListedWait(self)
        _ = await wait.waitToReceive { wait.start($0) }
        if wait.isCancelled { throw .cancelled(operation: "\(operation)") }
        if lc_loop_is_closed(core.loop) { throw .closed }
        if let failure = wait.failure { throw failure }
    }

    /// No cancel shortens it; a close of the loop ends it.
    nonisolated(nonsending) func waitUncancelled() async {
        let wait = ListedWait(self)
        _ = await EventLoops.waitUncancelled { wait.start($0) }
    }

    /// Their tasks run when their turn comes.
    func resumeAll() {
        for wait in take() { Waiter(word: wait.word).resume() }
    }

    /// Their tasks run here and now, if they are of this loop. For callbacks of the loop, which nothing surrounds. Those
    /// who begin to wait meanwhile wait for the next event.
    func runAll() {
        for wait in take() { core.resume(wait.word) }
    }

    /// The same, and what they wait for cannot be waited for. The error is the wait's, as its task may run later.
    func failAll(_ error: LoopError) {
        for wait in take() {
            wait.failure = error
            core.resume(wait.word)
        }
    }

    private func take() -> [ListedWait] {
        defer { waits = [] }
        return waits
    }

    fileprivate func add(_ wait: ListedWait) { waits.append(wait) }

    fileprivate func remove(_ wait: ListedWait) -> Bool {
        guard let index = waits.firstIndex(where: { $0 === wait }) else { return false }
        waits.remove(at: index)
        return true
    }
}

private final class ListedWait: WaitingPlace, @unchecked Sendable {
    private let list: WaitList
    private(set) var word: UInt64 = 0
    private(set) var isCancelled = false
    fileprivate var failure: LoopError?

    init(_ list: WaitList) { self.list = list }

    func start(_ word: UInt64) -> Int32 {
        self.word = word
        list.add(self)
        return 0
    }

    override func cancelReceive() {
        list.core.cancelSoon { [self] in
            guard list.remove(self) else { return }
            isCancelled = true
            list.core.resume(word)
        }
    }
}
