// SPDX-License-Identifier: Apache-2.0
//
// WorkerThreads.swift: the threads of a pool and the queue before them, under one lock.
//
// The threads own this object, and not the pool, which is thus free to go: its end tells them to end.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// How a thread is started: 0, or a negated errno. Tests have their own.
typealias ThreadStart = @Sendable (_ threads: WorkerThreads) -> Int32

final class WorkerThreads: @unchecked Sendable {
    let threadLimit: Int
    let queueLimit: Int
    private let startThread: ThreadStart
    /// Threads do not survive a fork, and the lock may not: in a child, nothing here is touched.
    private let forkGeneration = lc_fork_generation()

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let arrivals = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    // Under the lock:
    private var first: OffloadedWork?
    private unowned(unsafe) var last: OffloadedWork?
    private var queued = 0
    /// Work that was admitted and is about to be put.
    private var reserved = 0
    private var threads = 0
    /// Threads without work: asleep, or on their way to look for some.
    private var free = 0
    private var isOver = false
    private var waitingForEnd: [ThreadWait] = []

    init(threadLimit: Int, queueLimit: Int, startThread: @escaping ThreadStart) {
        self.threadLimit = max(1, threadLimit)
        self.queueLimit = max(0, queueLimit)
        self.startThread = startThread
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(arrivals, nil)
    }

    deinit {
        if isForked { return }
        pthread_cond_destroy(arrivals)
        pthread_mutex_destroy(mutex)
        arrivals.deallocate()
        mutex.deallocate()
    }

    private var isForked: Bool { lc_fork_generation() != forkGeneration }

    private func withLock<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    // MARK: Any thread

    var threadCount: Int { isForked ? 0 : withLock { threads } }
    var queuedCount: Int { isForked ? 0 : withLock { queued } }
    var isShutDown: Bool { isForked ? true : withLock { isOver } }

    /// Admits one piece of work, for which there is a thread from here on: ``put(_:)`` or ``unreserve()`` follows.
    ///
    /// A thread is started if nobody is free to do it. That is done under the lock, so that work that was admitted
    /// always finds one; if none can be had, those there are take their time.
    func reserve(onlyIfRoom: Bool) throws(LoopError) {
        if isForked { throw .forked }
        try withLock { () throws(LoopError) in
            if isOver { throw .workersShutDown }
            let ahead = queued + reserved
            if ahead >= free && threads < threadLimit {
                let result = startThread(self)
                if result == 0 {
                    threads += 1
                    free += 1
                } else if threads == 0 {
                    throw .io(IOError(errno: result, operation: "start a worker thread"))
                }
            }
            if onlyIfRoom && ahead - free >= queueLimit { throw .workersFull }
            reserved += 1
        }
    }

    func unreserve() {
        withLock {
            reserved -= 1
            if isOver { pthread_cond_broadcast(arrivals) }
        }
    }

    func put(_ work: OffloadedWork) {
        withLock {
            reserved -= 1
            work.isQueued = true
            work.previous = last
            if let last { last.next = work } else { first = work }
            last = work
            queued += 1
            pthread_cond_signal(arrivals)
        }
    }

    /// False: a thread has taken it already.
    func remove(_ work: OffloadedWork) -> Bool { withLock { unlink(work) } }

    private func unlink(_ work: OffloadedWork) -> Bool {
        guard work.isQueued else { return false }
        work.isQueued = false
        work.next?.previous = work.previous
        if work.next == nil { last = work.previous }
        if let previous = work.previous { previous.next = work.next } else { first = work.next }
        work.next = nil
        work.previous = nil
        queued -= 1
        return true
    }

    /// Admits nothing more; what was admitted is done, then the threads end. True: they have.
    @discardableResult
    func shutDown() -> Bool {
        if isForked { return true }
        return withLock {
            isOver = true
            pthread_cond_broadcast(arrivals)
            return threads == 0
        }
    }

    /// Once the last thread ends, which it may have done: `wait` is told.
    func tellAtEnd(_ wait: ThreadWait) {
        let isEnd = withLock {
            if threads > 0 { waitingForEnd.append(wait) }
            return threads == 0
        }
        if isEnd { wait.arrive() }
    }

    /// True: it will not be told any more.
    func forget(_ wait: ThreadWait) -> Bool {
        withLock {
            guard let index = waitingForEnd.firstIndex(where: { $0 === wait }) else { return false }
            waitingForEnd.remove(at: index)
            return true
        }
    }

    // MARK: On a worker

    static func start(_ threads: WorkerThreads) -> Int32 {
        let context = Unmanaged.passRetained(threads)
        let result = lc_thread_start(
            "loop-worker", { Unmanaged<WorkerThreads>.fromOpaque($0!).takeRetainedValue().work() }, context.toOpaque())
        if result < 0 { context.release() }
        return result
    }

    private func work() {
        while let work = take() { run(work) }
    }

    /// Never under the lock: what goes with the work may call back in.
    @inline(never)
    private func run(_ work: consuming OffloadedWork) {
        work.run()
        // Free before the answer is told: whoever gets it may have more, for which no other thread is needed.
        withLock { free += 1 }
        work.arrive()
    }

    /// The next piece of work; `nil`: the thread's time has come.
    private func take() -> OffloadedWork? {
        let (work, told) = withLock { () -> (OffloadedWork?, [ThreadWait]) in
            while first == nil && !(isOver && reserved == 0) { pthread_cond_wait(arrivals, mutex) }
            free -= 1
            if let work = first {
                _ = unlink(work)
                return (work, [])
            }
            threads -= 1
            if threads > 0 { return (nil, []) }
            defer { waitingForEnd = [] }
            return (nil, waitingForEnd)
        }
        for wait in told { wait.arrive() }
        return work
    }
}
