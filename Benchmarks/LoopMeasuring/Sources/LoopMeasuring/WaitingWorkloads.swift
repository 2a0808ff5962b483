// SPDX-License-Identifier: Apache-2.0
//
// WaitingWorkloads.swift: what a loop does while there is nothing to do: how late it wakes, and that it does not.

import FoundationEssentials
import Glibc

public let sleepNanoseconds: UInt64 = 500_000

/// A sleep after the other; `sleep` is one of 500 us.
nonisolated(nonsending) public func measureSleeps(
    _ request: Request, _ sleep: nonisolated(nonsending) () async throws -> Void
) async -> Figures {
    var lateness: [Double] = []
    for _ in 0..<request.sleeps {
        let start = monotonicNanoseconds()
        do { try await sleep() } catch { return Figures(failure: "\(error)") }
        lateness.append(late(since: start))
    }
    return Figures(each: lateness)
}

/// The same where a wait is a timer.
public func measureWaits<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let count = request.sleeps
    return loop.wait { done in
        let counter = FireCounter()
        let start = OnLoop(monotonicNanoseconds())
        let lateness = OnLoop<[Double]>([])
        counter.expect(1)
        counter.onLast = {
            lateness.value.append(late(since: start.value))
            if lateness.value.count == count { return done(Figures(each: lateness.value)) }
            counter.expect(1)
            start.value = monotonicNanoseconds()
            _ = loop.schedule(counter, after: sleepNanoseconds)
        }
        _ = loop.schedule(counter, after: sleepNanoseconds)
    }
}

/// Negative if it was early.
private func late(since start: UInt64) -> Double {
    Double(Int64(monotonicNanoseconds() - start) - Int64(sleepNanoseconds))
}

extension Request {
    fileprivate var sleeps: Int { max(20, Int(seconds * 3000)) }
}

/// Leaves a loop alone, but for a timer in an hour, and looks at its thread from outside.
public func measureIdleness<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    let counter = FireCounter()
    let thread: String = loop.wait { done in
        _ = loop.schedule(counter, after: 3600 * 1_000_000_000)
        done(currentThread())
    }
    usleep(50_000)
    let before = voluntarySwitches(of: thread)
    usleep(useconds_t(request.seconds * 1e6))
    var figures = Figures()
    if let before, let after = voluntarySwitches(of: thread) {
        figures.voluntarySwitches = after - before
    } else {
        figures.failure = "/proc has no context switches"
    }
    return figures
}

/// Names the calling thread as /proc does: `12/task/13`.
private func currentThread() -> String {
    var name = [CChar](repeating: 0, count: 64)
    let length = max(0, readlink("/proc/thread-self", &name, name.count))
    return String(decoding: name.prefix(length).map(UInt8.init(bitPattern:)), as: UTF8.self)
}

private func voluntarySwitches(of thread: String) -> Int? {
    guard let data = try? Data(contentsOf: URL(filePath: "/proc/\(thread)/status")) else { return nil }
    let line = String(decoding: data, as: UTF8.self).split(separator: "\n")
        .first { $0.hasPrefix("voluntary_ctxt_switches:") }
    return line.flatMap { Int($0.split(separator: "\t").last ?? "") }
}
