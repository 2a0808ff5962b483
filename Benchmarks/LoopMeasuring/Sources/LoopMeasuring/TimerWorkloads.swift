// SPDX-License-Identifier: Apache-2.0
//
// TimerWorkloads.swift: timers: set, cancelled, pushed back, and due.

/// Deadlines lie between one and two hours from now, so none is due while the measurement lasts.
@usableFromInline
struct PendingTimers<Loop: MeasuredLoop> {
    @usableFromInline let loop: Loop
    @usableFromInline let counter = FireCounter()
    @usableFromInline let base: UInt64
    @usableFromInline var random = Xorshift()
    @usableFromInline var timers: [Loop.Timer] = []

    @inlinable
    init(_ loop: Loop, _ count: Int) {
        self.loop = loop
        base = monotonicNanoseconds() + 3600 * 1_000_000_000
        timers.reserveCapacity(count)
        for _ in 0..<count { timers.append(scheduled()) }
    }

    @inlinable
    mutating func scheduled() -> Loop.Timer {
        loop.schedule(counter, at: base + random.next(below: 3_600_000_000) * 1000)
    }

    @inlinable
    mutating func replaceSome(_ operations: Int) {
        for _ in 0..<operations {
            let victim = Int(random.next(below: UInt64(timers.count)))
            loop.cancel(timers[victim])
            timers[victim] = scheduled()
        }
    }

    @inlinable
    mutating func pushBackSome(_ operations: Int) {
        for _ in 0..<operations {
            let victim = Int(random.next(below: UInt64(timers.count)))
            loop.cancel(timers[victim])
            timers[victim] = loop.schedule(counter, after: 3600 * 1_000_000_000)
        }
    }

    @inlinable
    mutating func add(_ operations: Int) {
        for _ in 0..<operations { timers.append(scheduled()) }
    }

    /// Takes out random ones: as many as there are beyond `count`, with the order of an unsorted array.
    @inlinable
    mutating func cancelDown(to count: Int) {
        while timers.count > count {
            let victim = Int(random.next(below: UInt64(timers.count)))
            timers.swapAt(victim, timers.count - 1)
            loop.cancel(timers.removeLast())
        }
    }
}

/// Timers that are pending all the while.
@inlinable
public func measureTimers<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    loop.wait { done in
        var timers = PendingTimers(loop, request.pending)
        var meter = Meter()
        let isOneByOne = request.subject == .timerSchedule || request.subject == .timerCancel
        let batchMax = isOneByOne ? max(1, request.pending / 10) : 1 << 16
        repeatBatches(request, batchMax: batchMax, warm: { meter = Meter() }) { operations in
            if request.subject != .timerCancel { meter.start() }
            switch request.subject {
            case .timerPair: timers.replaceSome(operations)
            case .timerRearm: timers.pushBackSome(operations)
            default: timers.add(operations)
            }
            if request.subject != .timerCancel { meter.stop(operations: operations) }
            guard isOneByOne else { return }
            if request.subject == .timerCancel { meter.start() }
            timers.cancelDown(to: request.pending)
            if request.subject == .timerCancel { meter.stop(operations: operations) }
        }
        done(meter.figures)
    }
}

/// Timers that are due, all at once: from the end of the callback that set them to the last of them.
@inlinable
public func measureFiring<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let meter = OnLoop(Meter())
    let counter = FireCounter()
    let end = monotonicNanoseconds() + UInt64(request.seconds * 1e9)
    return loop.wait { done in
        let random = OnLoop(Xorshift())
        @Sendable func round() {
            counter.expect(request.pending)
            let now = monotonicNanoseconds()
            for _ in 0..<request.pending {
                _ = loop.schedule(counter, at: now - 1 - random.value.next(below: 1_000_000_000))
            }
            meter.value.start()
        }
        let isWarm = OnLoop(false)
        counter.onLast = {
            if isWarm.value { meter.value.stop(operations: request.pending) }
            if isWarm.value && monotonicNanoseconds() >= end { return done(meter.value.figures) }
            isWarm.value = true
            loop.callSoon(round)
        }
        round()
    }
}
