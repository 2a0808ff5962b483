// SPDX-License-Identifier: Apache-2.0
//
// TimerTests.swift: timers: when they fire, in which order, what cancelling one frees; how long a pass may sleep.

import CLoopCore
import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Timers") struct TimerTests {
    // MARK: T5

    @Test("T5 a pass with something ready does not sleep until the next timer", arguments: LoopKind.available)
    func readyDoesNotSleep(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let far = try loop.callLater(.seconds(3600)) {}
            var links = 0
            func link() throws {
                links += 1
                if links == 100 { loop.stop() } else { try loop.callSoon(link) }
            }
            try loop.callSoon(link)
            try loop.runWatched()
            #expect(links == 100)
            #expect(loop.statistics.passes == 100)
            #expect(far.isPending)
        }
    }

    @Test("T5 a pass with nothing ready sleeps until the first timer", arguments: LoopKind.available)
    func sleepsUntilFirst(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let start = loop.now
            let far = try loop.callAt(start.advanced(by: .seconds(3600))) {}
            let deadline = start.advanced(by: .milliseconds(30))
            try loop.callAt(deadline) { loop.stop() }
            // A timer that is gone is not waited for, and one that comes later is.
            try loop.callAt(start.advanced(by: .milliseconds(5))) {}.cancel()
            try loop.runWatched()
            #expect(loop.now >= deadline)
            #expect(far.isPending)
            #expect(loop.statistics.passes <= 4, "the loop was busy rather than asleep")
        }
    }

    /// A far deadline must not overflow a timeout, nor keep other threads from waking the loop.
    @Test("T5 a loop that waits for a far timer sleeps, and can be woken", arguments: LoopKind.available)
    func farTimers(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let never = LoopInstant(nanoseconds: .max)
            for deadline in [loop.now.advanced(by: .seconds(30 * 24 * 3600)), never] {
                let passesBefore = loop.statistics.passes
                let timer = try loop.callAt(deadline) { Issue.record("the deadline is far away") }
                let (asleep, woken) = (Latch(), Latch())
                let runner = lc_thread_id()
                try loop.callSoon {
                    onOtherThread {
                        if waitUntilAsleep(runner) { asleep.open() }
                        try? loop.callSoonThreadsafe {
                            woken.open()
                            loop.stop()
                        }
                    }
                }
                try loop.runWatched()
                #expect(asleep.isOpen && woken.isOpen)
                #expect(timer.isPending)
                #expect(loop.statistics.passes - passesBefore <= 4, "the loop was busy rather than asleep")
                timer.cancel()
            }
            // What is beyond the end of time is at the end of time.
            for delay in [Duration.seconds(Int64.max), .seconds(Int64.max / 1_000_000_000)] {
                let timer = try loop.callLater(delay) { Issue.record("the deadline is far away") }
                try loop.runOnce(.noWait)
                #expect(timer.isPending)
            }
        }
    }

    // MARK: T6

    @Test("T6 negative delays fire in the next pass, in order of deadline", arguments: LoopKind.available)
    func negativeDelays(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [Int64] = []
            for delay in [-1, -3, 0, -2, Int64.min, -1000] as [Int64] {
                try loop.callLater(.seconds(delay)) { ran.append(delay) }
            }
            try loop.watched { try loop.runOnce() }
            #expect(ran == [.min, -1000, -3, -2, -1, 0])
            #expect(loop.statistics.passes == 1)
        }
    }

    @Test("T6 a negative delay set within a pass waits for the next one", arguments: LoopKind.available)
    func negativeDelayInPass(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var firedIn: UInt64 = 0
            try loop.callSoon {
                try loop.callLater(.seconds(-5)) {
                    firedIn = loop.statistics.passes
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(firedIn == 2)
        }
    }

    // MARK: T7

    @Test("T7 times in the past are fine", arguments: LoopKind.available)
    func pastTimes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            let now = loop.now
            try loop.callAt(now) { ran.append("now") }
            try loop.callAt(now.advanced(by: .milliseconds(-1))) { ran.append("just now") }
            try loop.callAt(LoopInstant(nanoseconds: 0)) { ran.append("the beginning") }
            try loop.runOnce(.noWait)
            #expect(ran == ["the beginning", "just now", "now"])
        }
    }

    @Test("T7 deadlines and now are of one clock, the monotonic one", arguments: LoopKind.available)
    func clockBase(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            func monotonic() -> UInt64 {
                var now = timespec()
                clock_gettime(CLOCK_MONOTONIC, &now)
                return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
            }
            let before = monotonic()
            let now = loop.now.nanoseconds
            #expect(before <= now && now <= monotonic())
            let deadline = monotonic() + 5_000_000
            var firedAt: UInt64 = 0
            try loop.callAt(LoopInstant(nanoseconds: deadline)) {
                firedAt = monotonic()
                loop.stop()
            }
            try loop.runWatched()
            #expect(firedAt >= deadline)
        }
    }

    @Test("E14 now goes on within a pass", arguments: LoopKind.available)
    func nowIsFresh(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var moved = false
            try loop.callSoon {
                let start = loop.now
                for _ in 0..<10_000_000 where !moved { moved = loop.now > start }
            }
            try loop.runOnce(.noWait)
            #expect(moved)
        }
    }

    // MARK: T8

    @Test("T8 no timer fires early, and half of them within 5 ms", arguments: LoopKind.available)
    func neverEarly(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let count = 1000
            var lateness: [Duration] = []
            func next() throws {
                guard lateness.count < count else { return loop.stop() }
                let delay = Duration.microseconds(200 + lateness.count * 37 % 701)
                let start = loop.now
                try loop.callLater(delay) {
                    lateness.append(start.duration(to: loop.now) - delay)
                    try next()
                }
            }
            try loop.callSoon(next)
            try loop.runWatched()
            #expect(lateness.count == count)
            #expect(lateness.allSatisfy { $0 >= .zero })
            #expect(lateness.sorted()[count / 2] < .milliseconds(5))
        }
    }

    @Test("T8 timers close together fire in order and none early", arguments: LoopKind.available)
    func neverEarlyTogether(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let count = 1000
            let start = loop.now
            var fired: [LoopInstant] = []
            var early = 0
            for number in 0..<count {
                let deadline = start.advanced(by: .microseconds(200 + number * 577 % 701))
                try loop.callAt(deadline) {
                    if loop.now < deadline { early += 1 }
                    fired.append(deadline)
                    if fired.count == count { loop.stop() }
                }
            }
            try loop.runWatched()
            #expect(early == 0)
            #expect(fired.count == count)
            // Within a pass they are in order, and those of a later pass were not due in an earlier one.
            #expect(fired == fired.sorted())
        }
    }

    @Test("T8 a wake-up before its time does not fire a timer", arguments: LoopKind.available)
    func wakesAreNotDeadlines(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let deadline = loop.now.advanced(by: .milliseconds(30))
            let firedAt = Journal<LoopInstant>()
            let calls = Journal<LoopInstant>()
            let count = 10
            @Sendable func stopWhenDone() {
                if !firedAt.entries.isEmpty && calls.entries.count == count { loop.stop() }
            }
            try loop.callAt(deadline) {
                firedAt.note(loop.now)
                stopWhenDone()
            }
            try loop.callSoon {
                onOtherThread {
                    for _ in 0..<count {
                        let seen = Latch()
                        try? loop.callSoonThreadsafe {
                            calls.note(loop.now)
                            stopWhenDone()
                            seen.open()
                        }
                        guard seen.wait() else { return }
                    }
                }
            }
            try loop.runWatched()
            #expect(calls.entries.count == count)
            #expect(firedAt.entries.count == 1)
            #expect(firedAt.entries.allSatisfy { $0 >= deadline })
        }
    }

    // MARK: T9

    @Test("T9 equal deadlines fire in the order they were set", arguments: LoopKind.available)
    func ties(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let base = loop.now.advanced(by: .seconds(-10))
            var ran: [Int] = []
            var expected: [(deadline: Int, number: Int)] = []
            var cancelled: [Handle] = []
            for number in 0..<2000 {
                let deadline = number * 7919 % 5
                let handle = try loop.callAt(base.advanced(by: .seconds(deadline))) { ran.append(number) }
                // Taking some out of the middle moves others about.
                if number % 3 == 1 { cancelled.append(handle) } else { expected.append((deadline, number)) }
            }
            for handle in cancelled { handle.cancel() }
            try loop.runOnce(.noWait)
            #expect(ran == expected.sorted { $0 < $1 }.map(\.number))
        }
    }

    // MARK: T10

    @Test("T10 cancel frees a timer and its captures at once, and twice does nothing", arguments: LoopKind.available)
    func cancelFrees(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            weak var kept: Witness?
            func set() throws -> Handle {
                let witness = Witness()
                kept = witness
                return try loop.callLater(.seconds(3600)) { Issue.record("it was cancelled: \(witness)") }
            }
            let handle = try set()
            #expect(kept != nil && handle.isPending)
            #expect(loop.statistics.timers == 1)
            handle.cancel()
            #expect(kept == nil && !handle.isPending)
            #expect(loop.statistics.timers == 0)
            handle.cancel()
            #expect(loop.statistics.timers == 0)
        }
    }

    @Test("T10 a timer cancelled before it is due does not fire, and the others do", arguments: LoopKind.available)
    func cancelledAmongOthers(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [Int] = []
            let start = loop.now
            let handles = try (0..<10).map { number in
                try loop.callAt(start.advanced(by: .milliseconds(number))) { ran.append(number) }
            }
            for number in [0, 3, 9] { handles[number].cancel() }
            try loop.watched { try loop.runUntilIdle() }
            #expect(ran == [1, 2, 4, 5, 6, 7, 8])
        }
    }

    @Test(
        "T10 a handle outlives its loop, keeps nothing alive, and cancels nothing of another",
        arguments: LoopKind.available)
    func handleOutlivesLoop(kind: LoopKind) async throws {
        try await onThread {
            weak var kept: LoopCore?
            func made() throws -> Handle {
                let loop = try kind.makeLoop()
                kept = loop.core
                let handle = try loop.callLater(.seconds(3600)) {}
                try loop.close()
                return handle
            }
            let handle = try made()
            #expect(kept == nil)
            let other = try kind.makeLoop()
            defer { try? other.close() }
            let pending = try other.callLater(.seconds(3600)) {}
            #expect(!handle.isPending)
            handle.cancel()
            #expect(pending.isPending)
        }
    }

    @Test("T10 handles find their loops among many that do not run")
    func manyLoops() async throws {
        try await onThread {
            let loops = try (0..<70).map { _ in try SelectorLoop() }
            defer { loops.forEach { try? $0.close() } }
            let handles = try loops.map { try $0.callLater(.seconds(3600)) {} }
            for (loop, handle) in zip(loops, handles) {
                #expect(handle.isPending)
                handle.cancel()
                #expect(!handle.isPending && loop.statistics.timers == 0)
            }
        }
    }

    // MARK: F32

    /// Where time ends, in either direction. `Duration` itself refuses what is not a number and what is infinite.
    private static let beyond: [Duration] = [
        .seconds(1e19), .seconds(1e20), .seconds(Int64.max), .nanoseconds(Int64.max),
        Duration(secondsComponent: .max, attosecondsComponent: 999_999_999_999_999_999),
    ]

    @Test(
        "F32 delays out of all reason come at once or never, in order, and hold up nothing",
        arguments: LoopKind.available)
    func unreasonable(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [Int] = []
            var far: [Handle] = []
            for delay in Self.beyond { far.append(try loop.callLater(delay) { ran.append(-1) }) }
            far.append(try loop.callAt(LoopInstant(nanoseconds: .max)) { ran.append(-1) })
            try loop.callLater(.milliseconds(1)) {
                ran.append(100)
                loop.stop()
            }
            try loop.callLater(.nanoseconds(-1)) { ran.append(10) }
            for (index, delay) in Self.beyond.enumerated() where delay > .seconds(Int64.max / 2) {
                try loop.callLater(.zero - delay) { ran.append(index) }
            }
            try loop.callAt(LoopInstant(nanoseconds: 0)) { ran.append(9) }
            try loop.runWatched()
            #expect(ran == [0, 1, 2, 4, 9, 10, 100])
            let allPending = far.allSatisfy(\.isPending)
            #expect(allPending)
            // They do not keep it from sleeping, either.
            let passes = loop.statistics.passes
            try loop.callLater(.milliseconds(20)) { loop.stop() }
            try loop.runWatched()
            #expect(loop.statistics.passes - passes <= 5)
            for handle in far { handle.cancel() }
            try loop.watched { try loop.runUntilIdle() }
            #expect(ran.count == 7)
        }
    }

    @Test("F32 sleeps out of all reason end at once, or with a cancel", arguments: LoopKind.available)
    func unreasonableSleeps(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.runWatched {
                try await loop.sleep(until: LoopInstant(nanoseconds: 0))
                for delay in Self.beyond {
                    try await loop.sleep(for: .zero - delay)
                    let sleep = loop.spawn { try await loop.sleep(for: delay) }
                    for _ in 0..<3 { await Task.yield() }
                    #expect(loop.statistics.timers == 1)
                    sleep.cancel()
                    await #expect(throws: LoopError.cancelled(operation: "sleep")) { try await sleep.value }
                    #expect(loop.statistics.timers == 0)
                }
            }
        }
    }

    // MARK: Instants

    @Test("F32 LoopInstant stops at either end of time")
    func instants() {
        let zero = LoopInstant(nanoseconds: 0)
        let end = LoopInstant(nanoseconds: .max)
        let middle = LoopInstant(nanoseconds: 1 << 62)
        for far in Self.beyond.filter({ $0 > .seconds(Int64.max / 2) }) + [.seconds(Int64.max / 1_000_000_000 + 1)] {
            #expect(end.advanced(by: far) == end)
            #expect(zero.advanced(by: .zero - far) == zero)
        }
        #expect(middle.advanced(by: .seconds(Int64.max)) == end)
        #expect(middle.advanced(by: .seconds(Int64.min)) == zero)
        #expect(end.advanced(by: .nanoseconds(1)) == end)
        #expect(zero.advanced(by: .nanoseconds(-1)) == zero)
        #expect(zero.duration(to: end) == .nanoseconds(Int64.max))
        #expect(end.duration(to: zero) == .nanoseconds(-Int64.max))
    }

    @Test("LoopInstant adds exactly, and rounds up what is finer than it")
    func instantsExact() {
        let start = LoopInstant(nanoseconds: 5_000_000_000)
        for nanoseconds in [0, 1, -1, 999_999_999, -999_999_999, 1_000_000_001, -5_000_000_000] as [Int64] {
            let moved = start.advanced(by: .nanoseconds(nanoseconds))
            #expect(Int64(moved.nanoseconds) == 5_000_000_000 + nanoseconds)
            #expect(start.duration(to: moved) == .nanoseconds(nanoseconds))
            #expect((start < moved) == (nanoseconds > 0))
        }
        let attosecond = Duration(secondsComponent: 0, attosecondsComponent: 1)
        #expect(start.advanced(by: attosecond).nanoseconds == 5_000_000_001)
        #expect(start.advanced(by: .zero - attosecond).nanoseconds == 5_000_000_000)
    }
}
