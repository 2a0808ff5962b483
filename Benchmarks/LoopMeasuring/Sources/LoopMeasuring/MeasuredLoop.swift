// SPDX-License-Identifier: Apache-2.0
//
// MeasuredLoop.swift: a loop as the measurements see it: the few calls they make.

import Dispatch

/// A loop that runs on a thread of its own. The measurements are generic over it and inlinable, so that nothing stands
/// between them and the loop but its own calls.
public protocol MeasuredLoop: Sendable {
    associatedtype Timer

    /// On the loop's thread.
    func callSoon(_ body: @escaping @Sendable () -> Void)
    /// From any thread.
    func callThreadsafe(_ body: @escaping @Sendable () -> Void)
    /// On the loop's thread, `time` on the monotonic clock.
    func schedule(_ counter: FireCounter, at time: UInt64) -> Timer
    /// On the loop's thread, reading the clock.
    func schedule(_ counter: FireCounter, after nanoseconds: UInt64) -> Timer
    func cancel(_ timer: Timer)
}

/// What every callback of a measurement does: it counts, and tells of the last. On the loop's thread.
///
/// A closure that captures this one object and nothing else needs no memory, so what is counted is the loop's.
public final class FireCounter: @unchecked Sendable {
    @usableFromInline var count = 0
    @usableFromInline var last = Int.max
    @usableFromInline var onLast: () -> Void = {}

    public init() {}

    @inlinable
    public func fire() {
        count += 1
        if count == last { onLast() }
    }
}

extension MeasuredLoop {
    /// Runs `body` on the loop and waits for what it hands to its argument.
    @inlinable
    func wait<Result: Sendable>(_ body: @escaping @Sendable (@escaping @Sendable (Result) -> Void) -> Void) -> Result {
        let handed = Handed<Result>()
        callThreadsafe { body { handed.set($0) } }
        return handed.wait()
    }
}

/// A value on its way from one thread to another.
public final class Handed<Value: Sendable>: @unchecked Sendable {
    private let semaphore = DispatchSemaphore(value: 0)
    private var value: Value?

    public init() {}

    public func set(_ value: Value) {
        self.value = value
        semaphore.signal()
    }

    public func wait() -> Value {
        semaphore.wait()
        return value.unsafelyUnwrapped
    }
}

/// A variable that the callbacks of one loop share.
@usableFromInline
final class OnLoop<Value>: @unchecked Sendable {
    @usableFromInline var value: Value
    @inlinable init(_ value: Value) { self.value = value }
}
