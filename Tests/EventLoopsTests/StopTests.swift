// SPDX-License-Identifier: Apache-2.0
//
// StopTests.swift: stopping a loop, from within, from without, ahead of time; and what is left for the next run.

import CLoopCore
import EventLoops
import Testing

@Suite("Stopping") struct StopTests {
    // MARK: E4

    @Test("E4 stop lets the pass finish, and what the pass adds waits", arguments: LoopKind.available)
    func stopInPass(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            func add(_ name: String) throws {
                try loop.callSoon {
                    ran.append(name)
                    try loop.callSoon { ran.append(name + " later") }
                }
            }
            try add("before")
            try loop.callSoon { loop.stop() }
            try add("after")
            try loop.callLater(.seconds(-1)) { ran.append("timer") }
            try loop.runWatched()
            #expect(ran == ["before", "after", "timer"])
            #expect(loop.statistics.passes == 1)
            try loop.runOnce(.noWait)
            #expect(ran == ["before", "after", "timer", "before later", "after later"])
        }
    }

    @Test("E4 stop from another thread lets the pass finish, too", arguments: LoopKind.available)
    func stopInPassFromElsewhere(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            try loop.callSoon { try onJoinedThread { loop.stop() } }
            try loop.callSoon {
                ran.append("same pass")
                try loop.callSoon { ran.append("next run") }
            }
            try loop.runWatched()
            #expect(ran == ["same pass"])
            try loop.runOnce(.noWait)
            #expect(ran == ["same pass", "next run"])
        }
    }

    @Test("E4 stop from another thread wakes a loop that sleeps", arguments: LoopKind.available)
    func stopWakes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let far = try loop.callLater(.seconds(3600)) {}
            let runner = lc_thread_id()
            for _ in 0..<20 {
                let asleep = Latch()
                try loop.callSoon {
                    onOtherThread {
                        if waitUntilAsleep(runner) { asleep.open() }
                        loop.stop()
                    }
                }
                try loop.runWatched()
                #expect(asleep.isOpen)
            }
            #expect(far.isPending)
        }
    }

    // MARK: E5

    @Test("E5 stop before run gives exactly one pass that does not sleep", arguments: LoopKind.available)
    func stopBeforeRun(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let far = try loop.callLater(.seconds(3600)) {}
            loop.stop()
            try loop.runWatched()
            #expect(loop.statistics.passes == 1)
            #expect(far.isPending)

            var ran: [String] = []
            try loop.callSoon {
                ran.append("ready")
                try loop.callSoon { ran.append("added") }
            }
            try loop.callLater(.seconds(-1)) { ran.append("due") }
            // However often it is asked, and by whom.
            loop.stop()
            loop.stop()
            try onJoinedThread { loop.stop() }
            try loop.runWatched()
            #expect(ran == ["ready", "due"])
            #expect(loop.statistics.passes == 2)
        }
    }

    @Test("E5 stop before run(until:) leaves a body that suspends unfinished", arguments: LoopKind.available)
    func stopBeforeBody(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            loop.stop()
            #expect(throws: LoopError.stoppedBeforeCompletion) {
                try loop.runWatched { try await loop.sleep(for: .seconds(3600)) }
            }
            #expect(loop.statistics.passes == 1)
        }
    }

    // MARK: E6

    @Test("E6 the wish to stop is gone when run returns", arguments: LoopKind.available)
    func stopIsReset(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            for stops in 0..<4 {
                var links = 0
                func link() throws {
                    links += 1
                    if links < 5 { try loop.callSoon(link) } else { for _ in 0...stops { loop.stop() } }
                }
                try loop.callSoon(link)
                try loop.runWatched()
                #expect(links == 5)
                // The same of a stop before the run.
                loop.stop()
                try loop.runWatched()
            }
        }
    }

    @Test("E6 what is left over keeps its order in the next run", arguments: LoopKind.available)
    func leftovers(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let journal = Journal<Int>()
            try loop.callSoon {
                for number in 0..<100 {
                    if number.isMultiple(of: 3) {
                        try loop.callSoonThreadsafe { journal.note(number) }
                    } else {
                        try loop.callSoon { journal.note(number) }
                    }
                }
                loop.stop()
            }
            try loop.runWatched()
            #expect(journal.entries.isEmpty)
            try loop.callSoon { journal.note(100) }
            try loop.callSoon { loop.stop() }
            try loop.runWatched()
            #expect(journal.entries == Array(0...100))
        }
    }
}
