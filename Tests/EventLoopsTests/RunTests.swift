// SPDX-License-Identifier: Apache-2.0
//
// RunTests.swift: running a loop, for good, for a body, for one pass, until idle.

import CLoopCore
import EventLoops
import Testing

@Suite("Running") struct RunTests {
    private struct BodyError: Error, Equatable { let number: Int }

    /// The four ways to run a loop.
    private static let waysToRun: [@Sendable (any Loop) throws -> Void] = [
        { try $0.run() },
        { try $0.runOnce(.noWait) },
        { try $0.runUntilIdle() },
        { try $0.run(until: {}) },
    ]

    // MARK: E1

    @Test("E1 a closed loop does not run", arguments: LoopKind.available)
    func runClosed(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            try loop.close()
            for run in Self.waysToRun {
                #expect(throws: LoopError.closed) { try run(loop) }
                #expect(Loops.running == nil)
                #expect(!loop.isRunning)
            }
        }
    }

    @Test(
        "F78 E1 T16 a running loop is not run again, by its callbacks or by another thread",
        arguments: LoopKind.available)
    func runRunning(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var reached = false
            try loop.callSoon {
                for run in Self.waysToRun { #expect(throws: LoopError.alreadyRunning) { try run(loop) } }
                let elsewhere = try onJoinedThread { () -> LoopError? in
                    do throws(LoopError) { try loop.run() } catch { return error }
                    return nil
                }
                #expect(elsewhere == .alreadyRunning)
                #expect(Loops.running === loop)
                #expect(loop.isRunning)
                // The run that was there goes on.
                try loop.callSoon {
                    reached = true
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(reached)
        }
    }

    @Test("F78 E1 while one loop runs, no other runs on its thread", arguments: LoopKind.available)
    func runOther(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let other = try kind.makeLoop()
            defer { try? other.close() }
            var ranOther = 0
            try other.callSoon { ranOther += 1 }
            try loop.callSoon {
                for run in Self.waysToRun { #expect(throws: LoopError.anotherLoopRunning) { try run(other) } }
                #expect(Loops.running === loop)
                #expect(loop.isOnLoop && !other.isOnLoop && !other.isRunning)
                loop.stop()
            }
            try loop.runWatched()
            #expect(ranOther == 0)
            // The refusals left no trace.
            try other.runOnce(.noWait)
            #expect(ranOther == 1)
        }
    }

    @Test(
        "E1 the running loop is known for the length of the run, and to its thread alone", arguments: LoopKind.available
    )
    func runningSlot(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(!loop.isRunning && !loop.isOnLoop && Loops.running == nil)
            try loop.callSoon {
                #expect(loop.isRunning && loop.isOnLoop && Loops.running === loop)
                let (known, onLoop) = try onJoinedThread { (Loops.running != nil, loop.isOnLoop) }
                #expect(!known && !onLoop)
                loop.stop()
            }
            try loop.runWatched()
            #expect(!loop.isRunning && !loop.isOnLoop && Loops.running == nil)
        }
    }

    @Test("E1 the running loop is forgotten when run throws", arguments: LoopKind.available)
    func runningSlotAfterError(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            func expectForgotten(sourceLocation: SourceLocation = #_sourceLocation) throws {
                #expect(Loops.running == nil && !loop.isRunning && !loop.isOnLoop, sourceLocation: sourceLocation)
                // Neither this loop nor another is in the way of one.
                try loop.runOnce(.noWait)
                let other = try kind.makeLoop()
                defer { try? other.close() }
                try other.runOnce(.noWait)
            }
            #expect(throws: BodyError(number: 1)) {
                try loop.runWatched { throw BodyError(number: 1) }
            }
            try expectForgotten()
            try loop.callSoon { loop.stop() }
            #expect(throws: LoopError.stoppedBeforeCompletion) {
                try loop.runWatched { try await loop.sleep(for: .seconds(3600)) }
            }
            try expectForgotten()
            try loop.callSoon { throw BodyError(number: 2) }
            loop.onUnhandledError = { _, _ in }
            try loop.runOnce(.noWait)
            try expectForgotten()
        }
    }

    // MARK: E2

    @Test("E2 run(until:) returns what its body returned, which ran on the loop", arguments: LoopKind.available)
    func bodyReturns(kind: LoopKind) async throws {
        final class Box { var number = 7 }  // not Sendable: it is handed over
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let thread = lc_thread_id()
            let box = try loop.runWatched {
                #expect(Loops.running === loop && lc_thread_id() == thread)
                let box = Box()
                try await loop.sleep(for: .milliseconds(1))
                #expect(Loops.running === loop && lc_thread_id() == thread)
                box.number += 1
                return box
            }
            #expect(box.number == 8)
        }
    }

    @Test("E2 run(until:) throws what its body threw", arguments: LoopKind.available)
    func bodyThrows(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(throws: BodyError(number: 3)) {
                try loop.runWatched {
                    try await loop.sleep(for: .milliseconds(1))
                    throw BodyError(number: 3)
                }
            }
            #expect(try loop.runWatched { 4 } == 4)
        }
    }

    /// The end of the body only schedules the stop: what was queued before the end still runs, and what that queues in
    /// turn waits.
    @Test("E2 callbacks queued in the pass in which the body ends still run", arguments: LoopKind.available)
    func completingPass(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let journal = Journal<String>()
            try loop.runWatched {
                for name in ["a", "b"] {
                    try loop.callSoon {
                        journal.note(name)
                        try loop.callSoon { journal.note(name + " later") }
                    }
                }
                try loop.callSoonThreadsafe { journal.note("c") }
                journal.note("end")
            }
            #expect(journal.entries == ["end", "a", "b", "c"])
            try loop.runOnce(.noWait)
            #expect(journal.entries == ["end", "a", "b", "c", "a later", "b later"])
        }
    }

    @Test("E2 a body that cannot run is not started, and freed", arguments: LoopKind.available)
    func bodyRefused(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let started = Latch()
            weak var kept: Witness?
            func refuse(_ expected: LoopError) {
                let witness = Witness()
                kept = witness
                #expect(throws: expected) {
                    try loop.run {
                        started.open()
                        withExtendedLifetime(witness) {}
                    }
                }
            }
            try loop.callSoon { refuse(.alreadyRunning) }
            try loop.runOnce(.noWait)
            #expect(kept == nil)
            try loop.runOnce(.noWait)
            try loop.close()
            refuse(.closed)
            #expect(kept == nil)
            #expect(!started.isOpen)
        }
    }

    // MARK: E3

    @Test("E3 a body whose loop is stopped goes on when the loop runs again", arguments: LoopKind.available)
    func stoppedBeforeCompletion(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            let journal = Journal<String>()
            let body: @Sendable () async throws -> Void = {
                journal.note("begin")
                try await loop.readable(pipe.readEnd)
                journal.note("end")
            }
            try loop.callSoon { try loop.callSoon { loop.stop() } }
            #expect(throws: LoopError.stoppedBeforeCompletion) { try loop.runWatched(until: body) }
            #expect(journal.entries == ["begin"])
            pipe.fill()
            try loop.watched { try loop.runUntilIdle() }
            #expect(journal.entries == ["begin", "end"])
        }
    }

    /// asyncio takes its done-callback off a future whose run was stopped, so that the future's end stops nothing else.
    @Test("E3 the end of a body that was left over does not stop a later run", arguments: LoopKind.available)
    func leftoverBody(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            let ended = Latch()
            let body: @Sendable () async throws -> Void = {
                try await loop.readable(pipe.readEnd)
                ended.open()
            }
            try loop.callSoon { try loop.callSoon { loop.stop() } }
            #expect(throws: LoopError.stoppedBeforeCompletion) { try loop.runWatched(until: body) }
            pipe.fill()
            let second = try loop.runWatched {
                while !ended.isOpen { await Task.yield() }
                try await loop.sleep(for: .milliseconds(5))
                return 2
            }
            #expect(second == 2)
        }
    }

    // MARK: E7

    @Test("E7 a pass that may not sleep does not, and is one pass", arguments: LoopKind.available)
    func runOnceNoWait(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let far = try loop.callLater(.seconds(3600)) { Issue.record("an hour cannot have passed") }
            try loop.watched { try loop.runOnce(.noWait) }
            #expect(loop.statistics.passes == 1)
            #expect(far.isPending)
            var ran: [String] = []
            try loop.callSoon {
                ran.append("first")
                try loop.callSoon { ran.append("second") }
            }
            try loop.runOnce(.noWait)
            #expect(ran == ["first"])
            try loop.runOnce(.noWait)
            #expect(ran == ["first", "second"])
            #expect(loop.statistics.passes == 3)
        }
    }

    @Test("E7 a pass that may sleep does so until something happens", arguments: LoopKind.available)
    func runOnceWait(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let deadline = loop.now.advanced(by: .milliseconds(20))
            var fired = false
            try loop.callAt(deadline) { fired = true }
            try loop.watched { try loop.runOnce() }
            #expect(fired && loop.now >= deadline)
            #expect(loop.statistics.passes == 1)
            // With something ready it does not wait for more.
            try loop.callLater(.seconds(3600)) {}
            var ran = false
            try loop.callSoon { ran = true }
            try loop.watched { try loop.runOnce(.wait) }
            #expect(ran)
            #expect(loop.statistics.passes == 2)
        }
    }

    @Test("E7 callSoon(stop) and run make one pass", arguments: LoopKind.available)
    func runOnceIdiom(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [Int] = []
            try loop.callSoon { ran.append(1) }
            try loop.callSoon { loop.stop() }
            try loop.callSoon {
                ran.append(2)
                try loop.callSoon { ran.append(3) }
            }
            try loop.runWatched()
            #expect(ran == [1, 2])
            #expect(loop.statistics.passes == 1)
        }
    }

    @Test("E7 a stop within a single pass is over with it", arguments: LoopKind.available)
    func runOnceStop(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.callSoon { loop.stop() }
            try loop.runOnce(.noWait)
            var links = 0
            func link() throws {
                links += 1
                if links == 3 { loop.stop() } else { try loop.callSoon(link) }
            }
            try loop.callSoon(link)
            try loop.runWatched()
            #expect(links == 3)
        }
    }

    // MARK: E10

    /// Each round finds the loop asleep with nothing to do at all, and wakes it.
    @Test("E10 a loop with nothing to do sleeps until another thread wakes it", arguments: LoopKind.available)
    func idleSleeps(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let runner = lc_thread_id()
            let stopAsked = Latch()
            let wakes = Journal<UInt64>()
            try loop.callSoon {
                onOtherThread {
                    // The thread may sleep elsewhere for a moment; once in a few rounds it sleeps in the loop.
                    for _ in 0..<1000 where (wakes.entries.last ?? 0) < 3 {
                        guard waitUntilAsleep(runner) else { break }
                        let seen = Latch()
                        try? loop.callSoonThreadsafe {
                            wakes.note(loop.statistics.wakes)
                            seen.open()
                        }
                        guard seen.wait() else { break }
                    }
                    _ = waitUntilAsleep(runner)
                    stopAsked.open()
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(stopAsked.isOpen, "run returned by itself")
            #expect((wakes.entries.last ?? 0) >= 3, "the loop did not sleep")
            // One pass for each call, one for the start, one for the stop; a few more are no harm, a busy loop is.
            #expect(loop.statistics.passes <= UInt64(2 * wakes.entries.count + 4))
        }
    }

    @Test("E10 runUntilIdle returns once nothing is left", arguments: LoopKind.available)
    func untilIdle(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            try loop.watched { try loop.runUntilIdle() }  // nothing from the start
            let journal = Journal<String>()
            let deadline = loop.now.advanced(by: .milliseconds(10))
            try loop.callSoon { try loop.callSoon { journal.note("callback") } }
            try loop.callAt(deadline) {
                journal.note("timer")
                pipe.fill()
            }
            let task = loop.spawn {
                try await loop.readable(pipe.readEnd)
                journal.note("readable")
                try await loop.sleep(for: .milliseconds(1))
                journal.note("slept")
            }
            try loop.watched { try loop.runUntilIdle() }
            // On a slow machine the timer may be due before the second pass.
            #expect(journal.entries.filter { $0 != "callback" } == ["timer", "readable", "slept"])
            #expect(journal.entries.contains("callback"))
            #expect(loop.now >= deadline)
            withExtendedLifetime(task) {}
        }
    }

    @Test("E10 runUntilIdle returns once what was written is out, though nobody reads", arguments: LoopKind.available)
    func untilWritten(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (connection, peer) = try makePair(on: loop)
            for round in 1...3 {
                try loop.callSoon { try connection.send(copying: [UInt8](repeating: 7, count: round).span.bytes) }
                try loop.watched { try loop.runUntilIdle() }
                #expect(connection.unsentByteCount == 0)
            }
            withExtendedLifetime(peer) {}
        }
    }

    @Test("E10 runUntilIdle ends with a stop, too", arguments: LoopKind.available)
    func untilIdleStopped(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let far = try loop.callLater(.seconds(3600)) {}
            try loop.callSoon { loop.stop() }
            try loop.watched { try loop.runUntilIdle() }
            #expect(far.isPending)
        }
    }
}
