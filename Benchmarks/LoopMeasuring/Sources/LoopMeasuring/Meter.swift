// SPDX-License-Identifier: Apache-2.0
//
// Meter.swift: the clock and the counters around what is measured.

import Glibc

/// CLOCK_MONOTONIC in nanoseconds.
public func monotonicNanoseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

/// What AllocationCounter counts, if it was preloaded into this process.
private struct Counter: @unchecked Sendable {
    private typealias Read = @convention(c) () -> UInt64
    private let read: Read?

    init(_ symbol: String) {
        read = dlsym(UnsafeMutableRawPointer(bitPattern: 0), symbol).map { unsafeBitCast($0, to: Read.self) }
    }

    var value: UInt64? { read?() }

    static let mallocs = Counter("allocation_counter_mallocs")
    static let eventfdWrites = Counter("allocation_counter_eventfd_writes")
}

/// Sums up time and counts over the stretches between start and stop.
public struct Meter: Sendable {
    private var operations = 0
    private var nanoseconds: UInt64 = 0
    private var mallocs: UInt64 = 0
    private var eventfdWrites: UInt64 = 0
    private var started: (nanoseconds: UInt64, mallocs: UInt64, eventfdWrites: UInt64) = (0, 0, 0)

    public init() { _ = Self.clockNanoseconds }

    /// What two looks at the clock take by themselves; it is subtracted.
    private static let clockNanoseconds: UInt64 = (0..<1000).map { _ in
        let start = monotonicNanoseconds()
        return monotonicNanoseconds() - start
    }.sorted()[500]

    public mutating func start() {
        started.mallocs = Counter.mallocs.value ?? 0
        started.eventfdWrites = Counter.eventfdWrites.value ?? 0
        started.nanoseconds = monotonicNanoseconds()
    }

    /// - Parameter end: When it was over, if that was noted elsewhere.
    public mutating func stop(operations: Int, at end: UInt64? = nil) {
        let elapsed = (end ?? monotonicNanoseconds()) - started.nanoseconds
        nanoseconds += elapsed - min(elapsed, Self.clockNanoseconds)
        mallocs += (Counter.mallocs.value ?? 0) - started.mallocs
        eventfdWrites += (Counter.eventfdWrites.value ?? 0) - started.eventfdWrites
        self.operations += operations
    }

    public var figures: Figures {
        var figures = Figures()
        guard operations > 0 else { return figures }
        figures.operations = operations
        figures.nanosecondsPerOperation = Double(nanoseconds) / Double(operations)
        fill(&figures)
        return figures
    }

    /// The counts alone, for operations that were timed in another way.
    @usableFromInline func fill(_ figures: inout Figures) {
        guard operations > 0 else { return }
        if Counter.mallocs.value != nil { figures.mallocsPerOperation = Double(mallocs) / Double(operations) }
        if Counter.eventfdWrites.value != nil {
            figures.eventfdWritesPerOperation = Double(eventfdWrites) / Double(operations)
        }
    }
}

/// Repeats `body` for as long as the request allows, with as many operations at a time as take a millisecond, up to
/// `batchMax`. `warm` is called once, after a fifth of the time.
@inlinable
func repeatBatches(_ request: Request, batchMax: Int, warm: () -> Void, _ body: (Int) -> Void) {
    var size = min(16, batchMax)
    let start = monotonicNanoseconds()
    let budget = UInt64(request.seconds * 1e9)
    var isWarm = false
    while true {
        let before = monotonicNanoseconds()
        if isWarm && before - start > budget { return }
        if !isWarm && before - start > budget / 5 {
            warm()
            isWarm = true
        }
        body(size)
        if monotonicNanoseconds() - before < 1_000_000 { size = min(size * 2, batchMax) }
    }
}

/// A small generator, the same numbers for everybody.
@usableFromInline
struct Xorshift {
    @usableFromInline var state: UInt64 = 0x9e37_79b9_7f4a_7c15

    @inlinable init() {}

    /// Uniform enough below 2^32.
    @inlinable
    mutating func next(below bound: UInt64) -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return ((state >> 32) &* bound) >> 32
    }
}
