// SPDX-License-Identifier: Apache-2.0
//
// TaskTests.swift: tasks and actors on a loop: their thread, their sleep, their cancelling.

import CLoopCore
import EventLoops
import Testing

@Suite("Tasks") struct TaskTests {
    /// Where this code runs, as the loop and as the system see it.
    private static func place(_ loop: any Loop) -> Place { Place(onLoop: loop.isOnLoop, thread: lc_thread_id()) }
    private struct Place: Hashable {
        let onLoop: Bool
        let thread: Int64
    }

    private actor Anywhere {
        func place(_ loop: any Loop) -> Place { TaskTests.place(loop) }
    }

    private actor OnLoop {
        let loop: any Loop
        var slept = 0
        init(_ loop: any Loop) { self.loop = loop }
        nonisolated var unownedExecutor: UnownedSerialExecutor { loop.serialExecutor.asUnownedSerialExecutor() }

        func place() -> Place { TaskTests.place(loop) }

        func placeAfterSleep() async throws -> Place {
            try await loop.sleep(for: .milliseconds(1))
            slept += 1
            return TaskTests.place(loop)
        }
    }

    /// A function without isolation, which runs wherever its task prefers.
    @concurrent private static func concurrentPlace(_ loop: any Loop) async -> Place { place(loop) }

    // MARK: N2

    @Test("N2 a task keeps its thread across awaits", arguments: LoopKind.available)
    func keepsThread(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            let here = Place(onLoop: true, thread: lc_thread_id())
            let anywhere = Anywhere()
            try loop.runWatched {
                #expect(Self.place(loop) == here)
                await Task.yield()
                #expect(Self.place(loop) == here)
                try await loop.sleep(for: .milliseconds(1))
                #expect(Self.place(loop) == here)
                try await loop.writable(pipe.writeEnd)
                #expect(Self.place(loop) == here)
                #expect(await Self.concurrentPlace(loop) == here)
                // An actor without an executor of its own comes along.
                #expect(await anywhere.place(loop) == here)
                // Resumed from elsewhere, it comes back.
                let elsewhere = await withCheckedContinuation { continuation in
                    onOtherThread { continuation.resume(returning: Self.place(loop)) }
                }
                #expect(!elsewhere.onLoop && elsewhere.thread != here.thread)
                #expect(Self.place(loop) == here)
            }
        }
    }

    @Test("N2 child tasks and async let stay on the loop's thread", arguments: LoopKind.available)
    func children(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let here = Place(onLoop: true, thread: lc_thread_id())
            let places = try loop.runWatched {
                async let first = Self.concurrentPlace(loop)
                var places: Set<Place> = [await first]
                await withTaskGroup(of: Place.self) { group in
                    for _ in 0..<20 {
                        group.addTask {
                            try? await loop.sleep(for: .microseconds(100))
                            return Self.place(loop)
                        }
                    }
                    for await place in group { places.insert(place) }
                }
                places.insert(try await loop.spawn { Self.place(loop) }.value)
                return places
            }
            #expect(places == [here])
        }
    }

    @Test("N2 a task on the loop's thread goes on without a wake", arguments: LoopKind.available)
    func noWakes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let wakes = try loop.runWatched {
                let before = loop.statistics.wakes
                for _ in 0..<1000 { await Task.yield() }
                for _ in 0..<100 { _ = try await loop.spawn {}.value }
                return loop.statistics.wakes - before
            }
            #expect(wakes == 0)
        }
    }

    @Test("N2 spawn from another thread runs on the loop", arguments: LoopKind.available)
    func spawnFromElsewhere(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let here = Place(onLoop: true, thread: lc_thread_id())
            let places = Journal<Place>()
            try loop.callSoon {
                onOtherThread {
                    loop.spawn(name: "spawned elsewhere", priority: .high) {
                        #expect(Task.name == "spawned elsewhere")
                        places.note(Self.place(loop))
                        loop.stop()
                    }
                }
            }
            try loop.runWatched()
            #expect(places.entries == [here])
        }
    }

    @Test(
        "X5 a task spawned elsewhere is cancelled from there, and what it comes to is told there",
        arguments: LoopKind.available)
    func awaitedElsewhere(kind: LoopKind) async throws {
        struct Mishap: Error {}
        let (value, failed, cancelled) = try await onLoop(kind) { loop in
            // From the thread pool, which awaits them.
            try await Task.detached {
                let value = try await loop.spawn { lc_thread_id() }.value == lc_thread_id()
                let failing = loop.spawn { throw Mishap() }
                let sleeping = loop.spawn { try await loop.sleep(for: .seconds(60)) }
                sleeping.cancel()
                var failed = false
                do { try await failing.value } catch { failed = error is Mishap }
                return (value, failed, await thrown { try await sleeping.value })
            }.value
        }
        #expect(!value)  // it ran on another thread, the loop's
        #expect(failed)
        #expect(cancelled == .cancelled(operation: "sleep"))
    }

    @Test("N2 tasks start in the order they were spawned", arguments: LoopKind.available)
    func spawnOrder(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let started = Journal<Int>()
            for number in 0..<100 { loop.spawn { started.note(number) } }
            try loop.callSoon { for number in 100..<200 { loop.spawn { started.note(number) } } }
            try loop.runOnce(.noWait)
            try loop.runOnce(.noWait)
            #expect(started.entries == Array(0..<200))
        }
    }

    @Test("N2 an actor on the serial executor runs on the loop's thread", arguments: LoopKind.available)
    func actors(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let here = Place(onLoop: true, thread: lc_thread_id())
            let onLoop = OnLoop(loop)
            let places = Journal<Place>()
            try loop.callSoon {
                // A callback of the loop is isolated to it already.
                onLoop.assumeIsolated { places.note($0.place()) }
            }
            // A task of the default executor, which knows nothing of the loop.
            Task.detached {
                places.note(await onLoop.place())
                places.note(try await onLoop.placeAfterSleep())
                #expect(!loop.isOnLoop)
                loop.stop()
            }
            try loop.runWatched()
            let fromTask = try loop.runWatched {
                [await onLoop.place(), try await onLoop.placeAfterSleep(), Self.place(loop)]
            }
            #expect(places.entries == [here, here, here])
            #expect(fromTask == [here, here, here])
        }
    }

    @Test("N2 the serial executor knows its own thread from others", arguments: LoopKind.available)
    func isolation(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(loop.serialExecutor.isIsolatingCurrentContext() == false)
            var within: [Bool?] = []
            try loop.callSoon {
                within.append(loop.serialExecutor.isIsolatingCurrentContext())
                within.append(try onJoinedThread { loop.serialExecutor.isIsolatingCurrentContext() })
            }
            try loop.runOnce(.noWait)
            #expect(within == [true, false])
        }
    }

    // MARK: Sleep

    private static func outcome(_ wait: () async throws -> Void) async -> LoopError? {
        do { try await wait() } catch { return error as? LoopError }
        return nil
    }

    @Test("sleep waits at least as long as it was asked to", arguments: LoopKind.available)
    func sleeps(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.runWatched {
                for microseconds in [300, 1500, -1_000_000] {
                    let start = loop.now
                    try await loop.sleep(for: .microseconds(microseconds))
                    #expect(start.duration(to: loop.now) >= .microseconds(microseconds))
                }
                let deadline = loop.now.advanced(by: .milliseconds(2))
                try await loop.sleep(until: deadline)
                #expect(loop.now >= deadline)
            }
        }
    }

    @Test("sleep ends with .cancelled when its task is cancelled, here or elsewhere", arguments: LoopKind.available)
    func sleepCancelled(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let outcomes = Journal<LoopError?>()
            func expectCancelled(_ cancel: (Task<Void, any Error>) throws -> Void) throws {
                let before = outcomes.entries.count
                let task = loop.spawn {
                    outcomes.note(await Self.outcome { try await loop.sleep(for: .seconds(3600)) })
                    loop.stop()
                }
                try cancel(task)
                try loop.runWatched()
                #expect(outcomes.entries.count == before + 1)
                #expect(outcomes.entries.last == .cancelled(operation: "sleep"))
                #expect(loop.statistics.timers == 0)
            }
            // Before it begins.
            try expectCancelled { $0.cancel() }
            // In the middle of it, on the loop's thread.
            try expectCancelled { task in
                try loop.runOnce(.noWait)
                #expect(loop.statistics.timers == 1)
                try loop.callSoon { task.cancel() }
            }
            // The same from another thread, which wakes the loop.
            try expectCancelled { task in
                let runner = lc_thread_id()
                try loop.callSoon {
                    onOtherThread {
                        _ = waitUntilAsleep(runner)
                        task.cancel()
                        task.cancel()
                    }
                }
            }
        }
    }

    @Test(
        "N7 a cancel that comes with the end of a sleep, or after it, cancels nothing else",
        arguments: LoopKind.available)
    func sleepCancelledLate(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let outcomes = Journal<LoopError?>()
            for _ in 0..<200 {
                let task = loop.spawn { outcomes.note(await Self.outcome { try await loop.sleep(for: .zero) }) }
                try loop.runOnce(.noWait)  // it sleeps, and is due
                // The cancel is queued behind whatever the pass finds due, and ahead of what comes then.
                try loop.callSoon { task.cancel() }
                let other = loop.spawn {
                    outcomes.note(await Self.outcome { try await loop.sleep(for: .microseconds(50)) })
                }
                try loop.watched { try loop.runUntilIdle() }
                withExtendedLifetime(other) {}
            }
            let ended = outcomes.entries
            #expect(ended.count == 400)
            #expect(ended.allSatisfy { $0 == nil || $0 == .cancelled(operation: "sleep") })
            // The other ones were never cancelled.
            #expect(ended.filter { $0 == nil }.count >= 200)
        }
    }

    @Test("LoopClock sleeps on the loop that runs, and nowhere else", arguments: LoopKind.available)
    func loopClock(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.runWatched {
                let clock = LoopClock()
                let here = lc_thread_id()
                let elapsed = try await clock.measure {
                    try await clock.sleep(for: .milliseconds(2))
                    try await Task.sleep(for: .milliseconds(2), clock: clock)
                }
                #expect(elapsed >= .milliseconds(4))
                #expect(lc_thread_id() == here)
            }
        }
        await #expect(throws: LoopError.noRunningLoop) { try await LoopClock().sleep(for: .milliseconds(1)) }
    }

    @Test("F46 X7 sleep belongs on the loop's thread", arguments: LoopKind.available)
    func sleepElsewhere(kind: LoopKind) async throws {
        let loop = try kind.makeLoop()
        defer { try? loop.close() }
        await #expect(throws: LoopError.wrongThread(operation: "sleep")) { try await loop.sleep(for: .milliseconds(1)) }
    }
}
