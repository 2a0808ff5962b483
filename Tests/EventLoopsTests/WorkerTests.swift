// SPDX-License-Identifier: Apache-2.0
//
// WorkerTests.swift: calls that block, made on workers.

import CLoopCore
import TestSupportC
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error {}

private enum Locals {
    @TaskLocal static var name = "nobody"
}

/// What a forked child has of its parent's.
private final class Inherited: Sendable {
    let kind: LoopKind
    let loop: any Loop
    init(kind: LoopKind, loop: any Loop) {
        self.kind = kind
        self.loop = loop
    }

    /// What comes of offloading to the pool from a new loop, and then to the pool through the loop that has it.
    func errors() throws -> [LoopError?] {
        let pool = loop.workers
        let own = try kind.makeLoop()
        defer { try? own.close() }
        return try own.run { [loop] in
            let mine = await thrown { try await own.offload(on: pool) {} }
            let theirs = await thrown { try await loop.offload {} }
            return [mine, theirs]
        }
    }

    /// 0, or the number of the step that went wrong.
    func refuses() -> Int32 {
        guard loop.workers.threadCount == 0, loop.workers.queuedCount == 0 else { return 1 }
        guard let errors = try? errors() else { return 2 }
        guard errors == [.forked, .forked] else { return 3 }
        guard (try? loop.close()) != nil else { return 4 }
        return 0
    }
}

@Suite(.timeLimit(.minutes(2)))
struct WorkerTests {
    // MARK: X1

    @Test(
        "X1 a call that blocks is made on a worker, the loop goes on, and the task comes back",
        arguments: LoopKind.available)
    func blocks(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let here = lc_thread_id()
            let latch = Latch()
            try loop.callLater(.milliseconds(1)) { latch.open() }
            let (opened, thread, name) = try await loop.offload { (latch.wait(), lc_thread_id(), threadNames()) }
            #expect(opened && thread != here)
            #expect(isSimulated || name.contains("loop-worker"))
            #expect(loop.isOnLoop && lc_thread_id() == here)
        }
    }

    @Test("X1 what the call throws reaches the task", arguments: LoopKind.available)
    func throwing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            await #expect(throws: Mishap.self) { try await loop.offload { throw Mishap() } }
            #expect(loop.isOnLoop)
        }
    }

    @Test(
        "X1 a pool has no thread until it is used, and one for calls that follow each other",
        arguments: LoopKind.available)
    func lazy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            #expect(loop.workers.threadCount == 0)
            for number in 0..<50 {
                let answer = try await loop.offload { number }
                #expect(answer == number)
            }
            #expect(loop.workers.threadCount == 1)
        }
    }

    @Test("X1 a pool has the threads it may have and no more; the rest waits in order", arguments: LoopKind.available)
    func bounded(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 3)
            let latch = Latch()
            defer { latch.open() }
            let busy = try await pool.occupy(by: loop, until: latch)
            let log = Log<Int>()
            let others = (0..<10).map { number in
                loop.spawn { try await loop.offload(on: pool) { log.append(number) } }
            }
            try await until("the others wait", on: loop) { pool.queuedCount == 10 }
            #expect(pool.threadCount == 3 && log.all.isEmpty)
            latch.open()
            for task in busy { #expect(try await task.value) }
            for task in others { try await task.value }
            #expect(log.all.sorted() == Array(0..<10))
            #expect(pool.threadCount == 3 && pool.queuedCount == 0)
        }
    }

    @Test("X1 one thread makes calls in the order they were asked for", arguments: LoopKind.available)
    func order(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1)
            let latch = Latch()
            defer { latch.open() }
            _ = try await pool.occupy(by: loop, until: latch)
            let log = Log<Int>()
            let tasks = (0..<10).map { number in
                loop.spawn { try await loop.offload(on: pool) { log.append(number) } }
            }
            try await until("they wait", on: loop) { pool.queuedCount == 10 }
            latch.open()
            for task in tasks { try await task.value }
            #expect(log.all == Array(0..<10))
        }
    }

    @Test("X1 by default a pool has as many threads as processors and four, at most 32")
    func defaults() {
        let pool = WorkerPool()
        #expect(pool.maximumThreads == min(32, Int(lc_processor_count()) + 4))
        #expect(lc_processor_count() >= 1 && Int(lc_processor_count()) <= sysconf(Int32(_SC_NPROCESSORS_CONF)))
        #expect(pool.threadCount == 0 && pool.queuedCount == 0 && !pool.isShutDown)
        let least = WorkerPool(maximumThreads: -1, maximumQueued: .min)
        #expect(least.maximumThreads == 1 && least.maximumQueued == 0)
    }

    @Test("X1 X7 a call from elsewhere than the loop's thread is refused", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        let loop = try kind.makeLoop()
        #expect(await thrown { try await loop.offload {} } == .wrongThread(operation: "offload"))
        try loop.close()
        #expect(await thrown { try await loop.offload {} } == .closed)
        #expect(loop.workers.isShutDown && loop.workers.threadCount == 0)
    }

    // MARK: Cancelling

    @Test("X1 F69 a cancelled call that is queued never runs, and ends at once", arguments: LoopKind.available)
    func cancelQueued(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1)
            let latch = Latch()
            defer { latch.open() }
            let busy = try await pool.occupy(by: loop, until: latch)
            let log = Log<String>()
            let freed = Latch()
            let tasks = ["first", "second", "third"].map { name in
                let witness = Witness { if name == "second" { freed.open() } }
                return loop.spawn {
                    try await loop.offload(on: pool) { withExtendedLifetime(witness) { log.append(name) } }
                }
            }
            try await until("they wait", on: loop) { pool.queuedCount == 3 }
            tasks[1].cancel()
            #expect(await loop.error(of: tasks[1]) == .cancelled(operation: "offload"))
            #expect(loop.isOnLoop && pool.queuedCount == 2 && !latch.isOpen)
            latch.open()
            for task in [tasks[0], tasks[2]] { try await task.value }
            for task in busy { _ = try await task.value }
            #expect(log.all == ["first", "third"])
        }
    }

    @Test("X1 F69 whichever of the queued calls are cancelled, the others run in order", arguments: LoopKind.available)
    func cancelSome(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for kept in 0..<8 {
                let pool = WorkerPool(maximumThreads: 1)
                let latch = Latch()
                defer { latch.open() }
                _ = try await pool.occupy(by: loop, until: latch)
                let log = Log<Int>()
                let tasks = (0..<3).map { number in
                    loop.spawn { try await loop.offload(on: pool) { log.append(number) } }
                }
                try await until("they wait", on: loop) { pool.queuedCount == 3 }
                let isKept = (0..<3).map { kept & 1 << $0 != 0 }
                for (task, isKept) in zip(tasks, isKept) where !isKept { task.cancel() }
                for (task, isKept) in zip(tasks, isKept) where !isKept { _ = await loop.error(of: task) }
                let waiting = (0..<3).filter { isKept[$0] }
                let last = loop.spawn { try await loop.offload(on: pool) { log.append(3) } }
                try await until("one more waits", on: loop) { pool.queuedCount == waiting.count + 1 }
                latch.open()
                for (task, isKept) in zip(tasks, isKept) where isKept { try await task.value }
                try await last.value
                #expect(log.all == waiting + [3] && pool.queuedCount == 0)
            }
        }
    }

    @Test(
        "X1 F69 a cancelled call that runs goes on, its task does not wait, its result is dropped",
        arguments: LoopKind.available)
    func cancelRunning(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (started, latch, dropped) = (Latch(), Latch(), Latch())
            defer { latch.open() }
            let task = loop.spawn {
                try await loop.offload {
                    started.open()
                    _ = latch.wait()
                    return Witness { dropped.open() }
                }
            }
            try await until("it runs", on: loop) { started.isOpen }
            task.cancel()
            #expect(await loop.error(of: task) == .cancelled(operation: "offload"))
            #expect(!latch.isOpen && !dropped.isOpen)
            latch.open()
            try await until("the result is dropped", on: loop) { dropped.isOpen }
            // And the thread is free again.
            #expect(try await loop.offload { true })
        }
    }

    @Test("X1 a call that runs can see that nobody waits for it any more", arguments: LoopKind.available)
    func seesCancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (started, seen) = (Latch(), Latch())
            let task = loop.spawn {
                try await loop.offload {
                    started.open()
                    let limit = LoopInstant.now.advanced(by: .seconds(30))
                    while !Task.isCancelled && .now < limit { sched_yield() }
                    if Task.isCancelled { seen.open() }
                }
            }
            try await until("it runs", on: loop) { started.isOpen }
            #expect(!seen.isOpen)
            task.cancel()
            _ = await loop.error(of: task)
            try await until("it has seen the cancel", on: loop) { seen.isOpen }
        }
    }

    @Test("X1 a task that is cancelled already does not call", arguments: LoopKind.available)
    func cancelledBefore(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let log = Log<String>()
            let task = loop.spawn {
                withUnsafeCurrentTask { $0?.cancel() }
                try await loop.offload { log.append("ran") }
            }
            #expect(await loop.error(of: task) == .cancelled(operation: "offload"))
            #expect(log.all.isEmpty && loop.workers.threadCount == 0)
        }
    }

    @Test("X1 F69 however many are cancelled at whatever time, each call ends once", arguments: LoopKind.available)
    func race(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 2, maximumQueued: 8)
            let runs = (0..<300).map { _ in Count() }
            let tasks = runs.map { run in
                loop.spawn {
                    try await loop.offload(on: pool) {
                        run.add()
                        sched_yield()
                    }
                }
            }
            for (number, task) in tasks.enumerated() where number % 3 != 0 {
                if number % 7 == 0 { await Task.yield() }
                if number % 3 == 1 { task.cancel() } else { onOtherThread { task.cancel() } }
            }
            for (task, run) in zip(tasks, runs) {
                switch await task.result {
                case .success: #expect(run.value == 1)
                case .failure(let error):
                    #expect(error as? LoopError == .cancelled(operation: "offload"))
                    #expect(run.value <= 1)
                }
            }
            let isEnd = try await pool.shutdown()
            #expect(isEnd && pool.queuedCount == 0 && loop.core.services.waits.isEmpty)
        }
    }

    // MARK: A full queue

    @Test(
        "X1 F69 with the queue full, offload waits, and offloadIfRoom is refused at once", arguments: LoopKind.available
    )
    func full(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1, maximumQueued: 2)
            let latch = Latch()
            defer { latch.open() }
            _ = try await pool.occupy(by: loop, until: latch)
            let log = Log<Int>()
            var tasks = [loop.spawn { try await loop.offloadIfRoom(on: pool) { log.append(0) } }]
            tasks += (1..<5).map { number in
                loop.spawn { try await loop.offload(on: pool) { log.append(number) } }
            }
            try await until("they wait", on: loop) { pool.queuedCount == 5 }
            let refused = await thrown { try await loop.offloadIfRoom(on: pool) { log.append(100) } }
            #expect(refused == .workersFull && pool.queuedCount == 5)
            latch.open()
            for task in tasks { try await task.value }
            #expect(log.all == Array(0..<5))
            // There is room again.
            #expect(try await loop.offloadIfRoom(on: pool) { true })
        }
    }

    @Test("F69 a queue may be without a limit", arguments: LoopKind.available)
    func endlessQueue(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1, maximumQueued: .max)
            let done = try await loop.offloadIfRoom(on: pool) { true }
            #expect(done)
        }
    }

    @Test("F69 without a queue, offloadIfRoom takes what a thread can begin at once", arguments: LoopKind.available)
    func noQueue(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 2, maximumQueued: 0)
            let latch = Latch()
            defer { latch.open() }
            let started = Count()
            let tasks = (0..<2).map { _ in
                loop.spawn {
                    try await loop.offloadIfRoom(on: pool) {
                        started.add()
                        return latch.wait()
                    }
                }
            }
            try await until("both run", on: loop) { started.value == 2 }
            #expect(await thrown { try await loop.offloadIfRoom(on: pool) {} } == .workersFull)
            latch.open()
            for task in tasks { #expect(try await task.value) }
            #expect(try await loop.offloadIfRoom(on: pool) { true })
        }
    }

    // MARK: Close

    @Test("X1 E8 at the close of the loop waits end, and a later result is dropped", arguments: LoopKind.available)
    func closeWhileRunning(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (started, latch, ended, dropped) = (Latch(), Latch(), Latch(), Latch())
            defer { latch.open() }
            let log = Log<LoopError?>()
            loop.spawn {
                log.append(
                    await thrown {
                        _ = try await loop.offload {
                            started.open()
                            _ = latch.wait()
                            return Witness { dropped.open() }
                        }
                    })
                ended.open()
            }
            #expect(try loop.pass { started.isOpen })
            try loop.close()
            #expect(ended.wait())
            #expect(log.all == [.closed])
            #expect(!dropped.isOpen)
            latch.open()
            #expect(dropped.wait())
        }
    }

    @Test("X1 E8 what is queued at the close of the loop never runs", arguments: LoopKind.available)
    func closeWhileQueued(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pool = WorkerPool(maximumThreads: 1)
            let (started, latch) = (Latch(), Latch())
            defer { latch.open() }
            let (log, errors) = (Log<String>(), Log<LoopError?>())
            let ended = [Latch(), Latch()]
            loop.spawn {
                _ = try? await loop.offload(on: pool) {
                    started.open()
                    return latch.wait()
                }
                ended[0].open()
            }
            #expect(try loop.pass { started.isOpen })
            loop.spawn {
                errors.append(await thrown { try await loop.offload(on: pool) { log.append("ran") } })
                ended[1].open()
            }
            #expect(try loop.pass { pool.queuedCount == 1 })
            try loop.close()
            for latch in ended { #expect(latch.wait()) }
            #expect(errors.all == [.closed] && pool.queuedCount == 0)
            latch.open()
            // The pool is not the loop's, and goes on.
            let other = try kind.makeLoop()
            defer { try? other.close() }
            let thread = try other.runWatched { try await other.offload(on: pool) { lc_thread_id() } }
            #expect(thread != lc_thread_id() && log.all.isEmpty && !pool.isShutDown)
        }
    }

    @Test("E8 X1 a result that waits for the loop when that is closed is dropped", arguments: LoopKind.available)
    func closeWithResult(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (ended, dropped) = (Latch(), Latch())
            let log = Log<LoopError?>()
            let pool = WorkerPool(maximumThreads: 1)
            loop.spawn {
                log.append(await thrown { _ = try await loop.offload(on: pool) { Witness { dropped.open() } } })
                ended.open()
            }
            try loop.runOnce(.noWait)
            // The worker is done with the first once it does the second, and the loop does not look meanwhile.
            let other = try kind.makeLoop()
            defer { try? other.close() }
            try other.runWatched { try await other.offload(on: pool) {} }
            try loop.close()
            #expect(ended.wait() && dropped.wait())
            #expect(log.all == [.closed])
        }
    }

    // MARK: Fork

    @Test(
        "X1 F27 a pool that a process inherits by fork refuses, and does not hang", .realKernel("fork"),
        arguments: LoopKind.available)
    func forked(kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                let loop = try kind.makeLoop()
                defer { try? loop.close() }
                try loop.run { try await loop.offload {} }
                #expect(loop.workers.threadCount == 1)
                let inherited = Inherited(kind: kind, loop: loop)
                // Here first, so that the worker and the child meet no type for the first time: a child that is forked
                // while another thread makes metadata of a type waits for that, in Swift's runtime, and forever.
                #expect(try inherited.errors().first == .some(nil))
                let result = test_fork_run(
                    { Unmanaged<Inherited>.fromOpaque($0!).takeUnretainedValue().refuses() },
                    Unmanaged.passUnretained(inherited).toOpaque())
                #expect(result == 0)
                // The parent's goes on.
                #expect(try loop.run { try await loop.offload { true } })
            }
        }
    }

    // MARK: X2

    @Test("X2 a pool that was set is used, serves several loops, and outlives them", arguments: LoopKind.available)
    func set(kind: LoopKind) async throws {
        try await onThread {
            let pool = WorkerPool(maximumThreads: 1)
            var threads: Set<Int64> = []
            for _ in 0..<2 {
                let loop = try kind.makeLoop()
                defer { try? loop.close() }
                loop.workers = pool
                #expect(loop.workers === pool)
                threads.insert(try loop.runWatched { try await loop.offload { lc_thread_id() } })
            }
            #expect(threads.count == 1 && pool.threadCount == 1 && !pool.isShutDown)
        }
    }

    @Test("X2 a pool that is replaced finishes what it has, and ends", arguments: LoopKind.available)
    func replace(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (started, latch) = (Latch(), Latch())
            defer { latch.open() }
            let task = loop.spawn {
                try await loop.offload {
                    started.open()
                    return latch.wait()
                }
            }
            try await until("it runs", on: loop) { started.isOpen }
            let threads = loop.workers.threads
            loop.workers = WorkerPool(maximumThreads: 1)
            #expect(threads.isShutDown && !loop.workers.isShutDown)
            #expect(try await loop.offload { true })
            latch.open()
            #expect(try await task.value)
            try await until("its threads end", on: loop) { threads.threadCount == 0 }
        }
    }

    // MARK: X3

    @Test("X3 a shutdown waits for what there is, and admits nothing more", arguments: LoopKind.available)
    func shutdown(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let here = lc_thread_id()
            let pool = WorkerPool(maximumThreads: 2)
            loop.workers = pool
            let latch = Latch()
            defer { latch.open() }
            let busy = try await pool.occupy(by: loop, until: latch)
            let queued = loop.spawn { try await loop.offload { "done" } }
            try await until("it waits", on: loop) { pool.queuedCount == 1 }
            let ended = Log<Bool>()
            let shutdown = loop.spawn {
                ended.append(try await pool.shutdown())
                #expect(lc_thread_id() == here)
            }
            try await until("it is shut down", on: loop) { pool.isShutDown }
            #expect(await thrown { try await loop.offload {} } == .workersShutDown)
            #expect(ended.all.isEmpty)
            // Others still work.
            let other = WorkerPool(maximumThreads: 1)
            #expect(try await loop.offload(on: other) { true })
            latch.open()
            try await shutdown.value
            #expect(ended.all == [true] && pool.threadCount == 0)
            for task in busy { #expect(try await task.value) }
            #expect(try await queued.value == "done")
            // Again, and with nothing to wait for.
            #expect(try await pool.shutdown(within: .zero))
        }
    }

    @Test("X3 a shutdown stops waiting when its time is over; the work goes on", arguments: LoopKind.available)
    func shutdownTimeout(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1)
            let latch = Latch()
            defer { latch.open() }
            let busy = try await pool.occupy(by: loop, until: latch)
            let before = LoopInstant.now
            var isEnd = try await pool.shutdown(within: .milliseconds(5))
            #expect(!isEnd && pool.threadCount == 1 && before.duration(to: .now) >= .milliseconds(5))
            isEnd = try await pool.shutdown(within: .zero)
            #expect(!isEnd && loop.isOnLoop)
            latch.open()
            isEnd = try await pool.shutdown(within: .seconds(60))
            #expect(isEnd && pool.threadCount == 0)
            for task in busy { #expect(try await task.value) }
            #expect(loop.core.services.waits.isEmpty && loop.statistics.timers <= 1)
        }
    }

    @Test(
        "X3 a cancel and the close of the loop end the wait for a shutdown, and not the shutdown",
        arguments: LoopKind.available)
    func shutdownCancelled(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pool = WorkerPool(maximumThreads: 1)
            let (latch, ended) = (Latch(), Latch())
            defer { latch.open() }
            let errors = Log<LoopError?>()
            try loop.runWatched {
                _ = try await pool.occupy(by: loop, until: latch)
                let task = loop.spawn { try await pool.shutdown() }
                try await until("it is shut down", on: loop) { pool.isShutDown }
                task.cancel()
                errors.append(await loop.error(of: task))
                loop.spawn {
                    errors.append(await thrown { _ = try await pool.shutdown(within: .seconds(600)) })
                    ended.open()
                }
                try await until("both wait", on: loop) { loop.core.services.waits.count == 2 }
            }
            try loop.close()
            #expect(ended.wait())
            #expect(errors.all == [.cancelled(operation: "shutdown of a worker pool"), .closed])
            #expect(pool.isShutDown && pool.threadCount == 1)
            latch.open()
            let other = try kind.makeLoop()
            defer { try? other.close() }
            #expect(try other.runWatched { try await pool.shutdown() })
        }
    }

    @Test("X3 a shutdown needs a loop to wait on")
    func shutdownElsewhere() async throws {
        #expect(await thrown { _ = try await WorkerPool().shutdown() } == .noRunningLoop)
    }

    @Test("X3 E8 the close of a loop shuts its own pool down, without waiting", arguments: LoopKind.available)
    func closeShutsDown(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (started, latch) = (Latch(), Latch())
            defer { latch.open() }
            let pool = loop.workers
            loop.spawn {
                try await loop.offload {
                    started.open()
                    return latch.wait()
                }
            }
            #expect(try loop.pass { started.isOpen })
            try loop.close()
            #expect(pool.isShutDown && pool.threadCount == 1)
            latch.open()
            let other = try kind.makeLoop()
            defer { try? other.close() }
            #expect(try other.runWatched { try await pool.shutdown() })
            #expect(pool.threadCount == 0)
        }
    }

    // MARK: X4

    @Test("X4 a call on a worker sees the task's local values", arguments: LoopKind.available)
    func locals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pool = WorkerPool(maximumThreads: 1)
            for name in ["somebody", "somebody else"] {
                let seen = try await Locals.$name.withValue(name) {
                    try await loop.offload(on: pool) {
                        (Locals.name, Locals.$name.withValue("inner") { Locals.name }, Locals.name)
                    }
                }
                #expect(seen == (name, "inner", name))
            }
            let seen = try await loop.offload(on: pool) { Locals.name }
            #expect(seen == "nobody")
        }
    }

    // MARK: F70

    @Test("F70 without any thread a call throws, and nothing is lost", arguments: LoopKind.available)
    func noThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let isAllowed = Latch()
            let pool = WorkerPool(maximumThreads: 2, maximumQueued: 4) {
                isAllowed.isOpen ? WorkerThreads.start($0) : -EAGAIN
            }
            let log = Log<String>()
            for _ in 0..<3 {
                let error = await thrown { try await loop.offload(on: pool) { log.append("ran") } }
                #expect(error == .io(IOError(errno: EAGAIN, operation: "start a worker thread")))
                #expect(error.map { "\($0)".contains("ulimit -u") } == true)
            }
            #expect(pool.threadCount == 0 && pool.queuedCount == 0 && log.all.isEmpty)
            #expect(loop.core.services.waits.isEmpty)
            isAllowed.open()
            try await loop.offload(on: pool) { log.append("ran") }
            #expect(log.all == ["ran"] && pool.threadCount == 1)
            #expect(try await pool.shutdown())
        }
    }

    @Test("F70 with one thread and no other, calls are made one after the other", arguments: LoopKind.available)
    func oneThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let started = Count()
            let pool = WorkerPool(maximumThreads: 4, maximumQueued: 1) {
                started.add()
                return started.value == 1 ? WorkerThreads.start($0) : -EAGAIN
            }
            let latch = Latch()
            defer { latch.open() }
            let log = Log<Int>()
            let tasks = (0..<4).map { number in
                loop.spawn {
                    try await loop.offload(on: pool) {
                        _ = latch.wait()
                        log.append(number)
                    }
                }
            }
            try await until("three wait", on: loop) { pool.queuedCount == 3 }
            #expect(pool.threadCount == 1 && started.value == 4)
            #expect(await thrown { try await loop.offloadIfRoom(on: pool) {} } == .workersFull)
            latch.open()
            for task in tasks { try await task.value }
            #expect(log.all == [0, 1, 2, 3] && pool.threadCount == 1)
        }
    }

    @Test("H2 F69 what pools refuse is said in sentences")
    func descriptions() {
        #expect("\(LoopError.workersFull)".hasPrefix("offloadIfRoom: "))
        #expect("\(LoopError.workersShutDown)".contains("shut down"))
        for error in [LoopError.workersFull, .workersShutDown] { #expect("\(error)".hasSuffix(".")) }
    }
}
