// SPDX-License-Identifier: Apache-2.0
//
// Offload.swift: calls that block, made on a worker for a task of the loop.
//
// The call runs as a task of its own, whose executor is the record of the call: so it has the task-local values of the
// task that waits, and can see that it is cancelled, and the pool needs to know nothing of either.

import CLoopCore

extension Loop {
    /// Runs `body`, which may block, on a worker, and waits for it without blocking the loop.
    ///
    /// `body` sees the task-local values of the calling task. When all workers are busy the call waits its turn; calls
    /// start in the order they were made. Cancelling the task ends the wait at once: a body that has not started never
    /// runs; one that has goes on, finds `Task.isCancelled` true, and what it returns or throws is dropped. So does the
    /// close of the loop. Work of a pool that is shut down is still done.
    ///
    /// On the loop's thread, where it also resumes. Costs a task, a hand-over to a thread and a wake of the loop.
    /// Source: asyncio's `run_in_executor` and `to_thread`.
    /// - Parameter workers: `nil`: ``workers``.
    /// - Returns: What `body` returned.
    /// - Throws: What `body` threw; `.cancelled`, `.closed`, `.workersShutDown`, `.wrongThread`, `.forked`; `.io` when
    ///   there is no thread and none can be made.
    nonisolated(nonsending) public func offload<Success: Sendable>(
        on workers: WorkerPool? = nil, _ body: sending @escaping () throws -> Success
    ) async throws -> Success {
        try await core.offload(on: workers, onlyIfRoom: false, body)
    }

    /// The same, but does not wait for a place in the queue.
    /// - Throws: `.workersFull` at once when ``WorkerPool/maximumQueued`` calls wait already and no thread is free, in
    ///   which case `body` does not run; else as ``offload(on:_:)``.
    nonisolated(nonsending) public func offloadIfRoom<Success: Sendable>(
        on workers: WorkerPool? = nil, _ body: sending @escaping () throws -> Success
    ) async throws -> Success {
        try await core.offload(on: workers, onlyIfRoom: true, body)
    }
}

extension LoopCore {
    nonisolated(nonsending) func offload<Success: Sendable>(
        on workers: WorkerPool?, onlyIfRoom: Bool, _ body: sending @escaping () throws -> Success
    ) async throws -> Success {
        try check("offload")
        guard isOnLoop else { throw wrongThread("offload") }
        if Task.isCancelled { throw LoopError.cancelled(operation: "offload") }
        let threads = (workers ?? services.workers).threads
        try threads.reserve(onlyIfRoom: onlyIfRoom)
        let call = Call(body)
        let work = OffloadedWork(self, threads) { call.perform() }
        let result = await work.waitToReceive { work.start($0) }
        try work.check(result, "offload")
        return try call.result!.get()
    }
}

/// What a call does and what it comes to. The worker's from the hand-over until it arrives, if it does.
private final class Call<Success>: @unchecked Sendable {
    private var body: (() throws -> Success)?
    private(set) var result: Result<Success, any Error>?

    init(_ body: @escaping () throws -> Success) { self.body = body }

    func perform() {
        // What the body captured is gone before the result arrives.
        guard let body = body.take() else { return }
        result = Result { try body() }
    }
}

/// One call as the pool sees it, and the executor of its task: that has one job, which is the work.
final class OffloadedWork: ThreadWait, TaskExecutor, @unchecked Sendable {
    private let threads: WorkerThreads
    private let perform: @Sendable () -> Void
    /// Set before it is put into the queue.
    private var job: UnownedJob?
    /// On the loop's thread, which has the job if this is true.
    private var isSkipped = false
    private var task: Task<Void, Never>?

    // The pool's, under its lock.
    var isQueued = false
    var next: OffloadedWork?
    unowned(unsafe) var previous: OffloadedWork?

    init(_ core: LoopCore, _ threads: WorkerThreads, _ perform: @escaping @Sendable () -> Void) {
        self.threads = threads
        self.perform = perform
        super.init(core)
    }

    func start(_ word: UInt64) -> Int32 {
        let result = begin(word)
        guard result == 0 else {
            threads.unreserve()
            return result
        }
        task = Task(executorPreference: self) { if !self.isSkipped { self.perform() } }
        return 0
    }

    func enqueue(_ job: consuming ExecutorJob) {
        self.job = UnownedJob(job)
        threads.put(self)
    }

    /// On a worker, or on the loop's thread to be rid of the job.
    func run() { job.unsafelyUnwrapped.runSynchronously(on: asUnownedTaskExecutor()) }

    override func ended(_ ending: Ending) -> Bool {
        let task = task.take()
        if ending == .arrived { return true }
        task?.cancel()
        guard threads.remove(self) else { return false }
        isSkipped = true
        run()
        return true
    }
}
