// SPDX-License-Identifier: Apache-2.0
//
// LoopInstant.swift: the loop's clock: monotonic nanoseconds.

import CLoopCore

/// A point on the monotonic clock, in nanoseconds. The wall clock's jumps do not move it.
public struct LoopInstant: InstantProtocol, Sendable, Hashable, Comparable {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    public let nanoseconds: UInt64

    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// The clock, read now.
    public static var now: LoopInstant { LoopInstant(nanoseconds: lc_now_ns()) }

    /// Stops at either end of time rather than trap.
    public func advanced(by duration: Duration) -> LoopInstant {
        // A duration can hold more seconds than fit its components, which trap then.
        if duration >= .seconds(Int64.max) { return LoopInstant(nanoseconds: .max) }
        if duration <= .seconds(Int64.min) { return LoopInstant(nanoseconds: 0) }
        let (seconds, attoseconds) = duration.components
        // Rounded up, so that a timer never fires before its time.
        let (whole, rest) = attoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, sumOverflow) = scaled.addingReportingOverflow(whole + (rest > 0 ? 1 : 0))
        guard !overflow, !sumOverflow else {
            return LoopInstant(nanoseconds: seconds < 0 ? 0 : .max)
        }
        let (result, resultOverflow) =
            sum < 0
            ? nanoseconds.subtractingReportingOverflow(sum.magnitude)
            : nanoseconds.addingReportingOverflow(sum.magnitude)
        return LoopInstant(nanoseconds: resultOverflow ? (sum < 0 ? 0 : .max) : result)
    }

    public func duration(to other: LoopInstant) -> Duration {
        other.nanoseconds >= nanoseconds
            ? .nanoseconds(Int64(clamping: other.nanoseconds - nanoseconds))
            : .nanoseconds(-Int64(clamping: nanoseconds - other.nanoseconds))
    }

    public static func < (left: LoopInstant, right: LoopInstant) -> Bool { left.nanoseconds < right.nanoseconds }
}

/// The monotonic clock as a `Clock`; its sleep belongs on a loop's thread.
public struct LoopClock: Clock, Sendable {
    public init() {}
    public var now: LoopInstant { .now }
    /// What the clock can tell apart.
    public var minimumResolution: Duration { .nanoseconds(1) }

    /// Sleeps on the loop that runs on this thread.
    /// - Throws: `.noRunningLoop` elsewhere; else as ``Loop/sleep(until:)``.
    nonisolated(nonsending) public func sleep(until deadline: LoopInstant, tolerance: Duration?) async throws {
        try await Loops.requireRunning().sleep(until: deadline)
    }
}
