// SPDX-License-Identifier: Apache-2.0
//
// ThreadsafeTests.swift: callbacks from other threads: their order, their waking, their refusal.

import CLoopCore
import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Callbacks from other threads") struct ThreadsafeTests {
    @Test(
        "T12 calls of one thread keep their order with its callSoon, before and in a run", arguments: LoopKind.available
    )
    func orderWithCallSoon(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let journal = Journal<Int>()
            func queue(_ numbers: Range<Int>) throws {
                for number in numbers {
                    // Both ways round, also twice in a row.
                    if number % 5 < 2 {
                        try loop.callSoonThreadsafe { journal.note(number) }
                    } else {
                        try loop.callSoon { journal.note(number) }
                    }
                }
            }
            try queue(0..<50)
            try loop.callSoon { try queue(51..<100) }
            try loop.callSoonThreadsafe { journal.note(50) }
            try loop.runOnce(.noWait)
            #expect(journal.entries == Array(0...50))
            try loop.runOnce(.noWait)
            #expect(journal.entries == Array(0..<100))
            // Once more between two runs.
            try queue(100..<120)
            try loop.runOnce(.noWait)
            #expect(journal.entries == Array(0..<120))
        }
    }

    @Test("T12 a call wakes a loop that sleeps, each time", arguments: LoopKind.available)
    func wakes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let runner = lc_thread_id()
            let thread = Journal<Int64>()
            let rounds = 200
            try loop.callSoon {
                onOtherThread {
                    for _ in 0..<rounds {
                        // Any moment is allowed; this one is the hard one.
                        guard waitUntilAsleep(runner) else { break }
                        let seen = Latch()
                        try? loop.callSoonThreadsafe {
                            thread.note(lc_thread_id())
                            seen.open()
                        }
                        guard seen.wait() else { break }
                    }
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(thread.entries == Array(repeating: runner, count: rounds))
        }
    }

    @Test("T12 calls from four threads each run once and in the order of their thread", arguments: LoopKind.available)
    func storm(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (threads, calls) = (4, 5000)
            let journal = Journal<(thread: Int, call: Int)>()
            try loop.callSoon {
                for thread in 0..<threads {
                    onOtherThread {
                        for call in 0..<calls {
                            try? loop.callSoonThreadsafe {
                                journal.note((thread, call))
                                // The last of each thread looks whether it is the last of all.
                                if call == calls - 1, journal.entries.count == threads * calls { loop.stop() }
                            }
                        }
                    }
                }
            }
            try loop.runWatched()
            let entries = journal.entries
            #expect(entries.count == threads * calls)
            for thread in 0..<threads {
                #expect(entries.filter { $0.thread == thread }.map(\.call) == Array(0..<calls))
            }
            // At most one wake for each time the loop slept.
            #expect(loop.statistics.wakes <= loop.statistics.passes)
        }
    }

    @Test("T12 a loop that is awake is not woken, however many calls come", arguments: LoopKind.available)
    func fewWakes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (threads, calls) = (4, 5000)
            let ran = Journal<Int>()
            var passes: UInt64 = 0
            try loop.callSoon {
                let posted = (0..<threads).map { _ in Latch() }
                for thread in 0..<threads {
                    onOtherThread {
                        for _ in 0..<calls { try? loop.callSoonThreadsafe { ran.note(thread) } }
                        posted[thread].open()
                    }
                }
                for latch in posted { #expect(latch.wait()) }
                passes = loop.statistics.passes
            }
            let all = try loop.pass { ran.entries.count >= threads * calls }
            #expect(all)
            #expect(ran.entries.count == threads * calls)
            #expect(loop.statistics.passes == passes + 1)
            #expect(loop.statistics.wakes == 0)
        }
    }

    @Test("T12 a closed loop refuses calls from other threads and frees them", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            try loop.close()
            let freed = Latch()
            let error = try onJoinedThread { () -> LoopError? in
                let witness = Witness { freed.open() }
                do throws(LoopError) {
                    try loop.callSoonThreadsafe { withExtendedLifetime(witness) {} }
                } catch {
                    return error
                }
                return nil
            }
            #expect(error == .closed)
            #expect(freed.isOpen)
        }
    }

    /// Each call is either refused or dropped, and in both cases freed; none runs.
    @Test("T12 calls may race with close", arguments: LoopKind.available)
    func racesWithClose(kind: LoopKind) async throws {
        try await onThread {
            for _ in 0..<100 {
                let loop = try kind.makeLoop()
                let ran = Latch()
                let (made, freed) = (Journal<Void>(), Journal<Void>())
                let begun = [Latch(), Latch()]
                let refused = [Latch(), Latch()]
                for thread in 0..<2 {
                    onOtherThread {
                        for call in 0..<10_000_000 {
                            let witness = Witness { freed.note(()) }
                            made.note(())
                            do throws(LoopError) {
                                try loop.callSoonThreadsafe { withExtendedLifetime(witness) { ran.open() } }
                            } catch {
                                if error != .closed { Issue.record("refused with \(error)") }
                                break
                            }
                            loop.stop()
                            if call == 2 { begun[thread].open() }
                        }
                        refused[thread].open()
                    }
                }
                for latch in begun { #expect(latch.wait()) }
                try loop.close()
                for latch in refused { #expect(latch.wait()) }
                #expect(!ran.isOpen)
                // The last ones are freed on their way out of the loops above.
                let limit = LoopInstant.now.advanced(by: .seconds(60))
                while freed.entries.count < made.entries.count, .now < limit { sched_yield() }
                #expect(freed.entries.count == made.entries.count)
            }
        }
    }
}
