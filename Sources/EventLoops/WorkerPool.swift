// SPDX-License-Identifier: Apache-2.0
//
// WorkerPool.swift: threads for calls that block, as a loop's user sees them.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Threads for calls that block, which ``Loop/offload(on:_:)`` hands them.
///
/// A pool makes a thread when work waits and nobody is free, up to ``maximumThreads``, and keeps it; a pool that nobody
/// used has none. Every loop has a pool, ``Loop/workers``; make one more to keep apart what must not wait for each
/// other, or to have several loops share one. When a pool goes, its threads finish what it has, and end.
///
/// Any thread, unless a member says otherwise. A pool that a process inherits by fork has no threads there, and refuses
/// with `.forked`. Source: asyncio's default executor, a `ThreadPoolExecutor`.
public final class WorkerPool: Sendable {
    let threads: WorkerThreads

    /// 32, or four more than the processors this process may run on if that is less: work that blocks does not need a
    /// processor, and too many threads cost memory. Source: `ThreadPoolExecutor`.
    public static var defaultMaximumThreads: Int { min(32, Int(lc_processor_count()) + 4) }

    /// - Parameters:
    ///   - maximumThreads: At least 1, or it is taken for 1.
    ///   - maximumQueued: How much work may wait for a thread before ``Loop/offloadIfRoom(on:_:)`` refuses more.
    public convenience init(maximumThreads: Int = WorkerPool.defaultMaximumThreads, maximumQueued: Int = 1024) {
        self.init(maximumThreads: maximumThreads, maximumQueued: maximumQueued, startThread: WorkerThreads.start)
    }

    init(maximumThreads: Int, maximumQueued: Int, startThread: @escaping ThreadStart) {
        threads = WorkerThreads(threadLimit: maximumThreads, queueLimit: maximumQueued, startThread: startThread)
    }

    deinit { threads.shutDown() }

    /// The most threads it has at once.
    public var maximumThreads: Int { threads.threadLimit }
    /// The most work that waits for a thread before ``Loop/offloadIfRoom(on:_:)`` refuses more.
    public var maximumQueued: Int { threads.queueLimit }
    /// The threads it has now.
    public var threadCount: Int { threads.threadCount }
    /// The work that waits for a thread now, that of tasks in line for room in the queue included.
    public var queuedCount: Int { threads.queuedCount }
    /// Whether ``shutdown(within:)`` has been called, or the close of the loop whose own pool this is.
    public var isShutDown: Bool { threads.isShutDown }

    /// Takes no more work, and waits until what it has is done and its threads have ended.
    ///
    /// The wait ends early when `limit` is over; the threads then still finish what they have, and a second call waits
    /// on. From the first call on, however that goes, offloading to this pool throws `.workersShutDown`; other pools
    /// still work. On the thread of a loop, whichever. Source: asyncio's `shutdown_default_executor`.
    /// - Parameter limit: `nil`: as long as it takes. Zero or less: no wait.
    /// - Returns: Whether the threads have ended.
    /// - Throws: `.noRunningLoop`; `.cancelled`, `.closed`, which end the wait alone; `.forked`.
    nonisolated(nonsending) public func shutdown(within limit: Duration? = nil) async throws(LoopError) -> Bool {
        guard let core = LoopCore.current else { throw .noRunningLoop }
        try core.check("shutdown")
        let isEnd = threads.shutDown()
        if isEnd { return true }
        if let limit, limit <= .zero { return false }
        let wait = ShutdownWait(core, threads)
        let result = await wait.waitToReceive { wait.start($0, within: limit) }
        try wait.check(result, "shutdown of a worker pool")
        return wait.ending == .arrived
    }
}

private final class ShutdownWait: ThreadWait, @unchecked Sendable {
    private let threads: WorkerThreads
    private var timer: Handle?

    init(_ core: LoopCore, _ threads: WorkerThreads) {
        self.threads = threads
        super.init(core)
    }

    func start(_ word: UInt64, within limit: Duration?) -> Int32 {
        if let limit {
            timer = try? LoopCore.callAt(core.loop, .now.advanced(by: limit)) { self.end(.timedOut) }
            if timer == nil { return -ENOMEM }
        }
        let result = begin(word)
        if result == 0 { threads.tellAtEnd(self) }
        return result
    }

    override func ended(_ ending: Ending) -> Bool {
        timer?.cancel()
        return threads.forget(self)
    }
}
