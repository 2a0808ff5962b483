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
/// A closure that captures this one object and nothing else needs no memory, so what is counted is the loop's. The
/// numbers lie behind a pointer, where Swift does not check each access for exclusivity.
public final class FireCounter: @unchecked Sendable {
    @usableFromInline struct Numbers {
        @usableFromInline var count = 0
        @usableFromInline var last = Int.max
    }

    @usableFromInline let numbers = UnsafeMutablePointer<Numbers>.allocate(capacity: 1)
    @usableFromInline var onLast: () -> Void = {}

    public init() { numbers.initialize(to: Numbers()) }
    deinit { numbers.deallocate() }

    /// The next `last` callbacks are counted, and the last of them calls `onLast`.
    @usableFromInline
    func expect(_ last: Int) { numbers.pointee = Numbers(count: 0, last: last) }

    @inlinable
    public func fire() {
        numbers.pointee.count += 1
        if numbers.pointee.count == numbers.pointee.last { onLast() }
    }
}

/// For callbacks from several threads at once: a closure that captures nothing has no reference count, which those
/// threads and the loop would take from each other whatever the loop does.
public let floodCounter = FireCounter()

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
