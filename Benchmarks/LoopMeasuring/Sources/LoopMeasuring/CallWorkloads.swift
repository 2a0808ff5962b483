// SPDX-License-Identifier: Apache-2.0
//
// CallWorkloads.swift: callbacks, queued on the loop's thread and handed over by other threads.

import Glibc
import Synchronization

/// Rounds of a thousand, each queued by the last callback of the one before.
@inlinable
public func measureCallSoon<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let batch = 1000
    let budget = UInt64(request.seconds * 1e9)
    return loop.wait { done in
        let counter = FireCounter()
        let meter = OnLoop(Meter())
        let rounds = OnLoop(0)
        let start = monotonicNanoseconds()
        @Sendable func round() {
            let elapsed = monotonicNanoseconds() - start
            if rounds.value > 0 && elapsed >= budget {
                meter.value.stop(operations: rounds.value * batch)
                return done(meter.value.figures)
            }
            if rounds.value == 0 && elapsed >= budget / 5 { meter.value.start() }
            if elapsed >= budget / 5 { rounds.value += 1 }
            for _ in 0..<batch - 1 { loop.callSoon { counter.fire() } }
            loop.callSoon(round)
        }
        round()
    }
}

/// As many threads as asked for hand over calls as fast as they can. From the first call until the last has run.
@inlinable
public func measureCallThreadsafe<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let callsPerThread = max(100, Int(request.seconds * 800_000) / request.threads)
    func flood() -> Meter {
        let total = callsPerThread * request.threads
        let ended = Handed<UInt64>()
        floodCounter.expect(total)
        floodCounter.onLast = { ended.set(monotonicNanoseconds()) }
        let gate = Gate(threads: request.threads)
        let threads = (0..<request.threads).map { _ in
            JoinedThread {
                gate.pass()
                for _ in 0..<callsPerThread { loop.callThreadsafe { floodCounter.fire() } }
            }
        }
        gate.waitForAll()
        var meter = Meter()
        meter.start()
        gate.open()
        let end = ended.wait()
        threads.forEach { $0.join() }
        meter.stop(operations: total, at: end)
        return meter
    }
    _ = flood()
    return flood().figures
}

/// One call at a time, each to a loop that has had time to fall asleep.
@inlinable
public func measureCallLatency<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let count = max(20, Int(request.seconds * 3000))
    var latencies: [Double] = []
    var meter = Meter()
    meter.start()
    for _ in 0..<count {
        usleep(150)
        let ran = Handed<UInt64>()
        let start = monotonicNanoseconds()
        loop.callThreadsafe { ran.set(monotonicNanoseconds()) }
        latencies.append(Double(ran.wait() - start))
    }
    meter.stop(operations: count)
    var figures = Figures(each: latencies)
    meter.fill(&figures)
    figures.mallocsPerOperation = nil  // the measurement's own
    return figures
}

/// Lets threads go at the same moment.
@usableFromInline
final class Gate: Sendable {
    private let threads: Int
    private let waiting = Atomic(0)
    private let isOpen = Atomic(false)

    @usableFromInline init(threads: Int) { self.threads = threads }

    @usableFromInline
    func pass() {
        waiting.add(1, ordering: .releasing)
        while !isOpen.load(ordering: .acquiring) { sched_yield() }
    }

    @usableFromInline
    func waitForAll() {
        while waiting.load(ordering: .acquiring) < threads { sched_yield() }
    }

    @usableFromInline func open() { isOpen.store(true, ordering: .releasing) }
}

/// A thread with a body.
public struct JoinedThread {
    private let thread: pthread_t

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    public init(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(Body(body)).toOpaque()
        let result = pthread_create(
            &thread, nil,
            {
                Unmanaged<Body>.fromOpaque($0.unsafelyUnwrapped).takeRetainedValue().run()
                return nil
            }, argument)
        precondition(result == 0, "a thread could be made")
        self.thread = thread
    }

    public func join() { pthread_join(thread, nil) }
}
