// SPDX-License-Identifier: Apache-2.0
//
// Signals.swift: signals of the process as callbacks and as sequences, on any loop. The handler itself is signals.c's.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension Loop {
    /// Runs `body` whenever the process gets this signal: as an ordinary callback of a pass, not in the handler, so it
    /// may do anything. What it throws goes to ``onUnhandledError``.
    ///
    /// Any number of loops may ask for a signal, on whatever threads, and each is told once. A second call on a loop
    /// replaces its callback. A signal that comes again before the callback has begun is told once with the first: the
    /// callback learns that it came, not how often. System calls go on as if nothing had happened (`SA_RESTART`).
    ///
    /// The signal has to get through: some thread must not block it. The main thread blocks none unless told to;
    /// threads of Dispatch and of Swift's default executor block most. No mask is changed here.
    ///
    /// A handler does not keep ``runUntilIdle()`` going. A forked child has none: there the process does again what it
    /// did before.
    ///
    /// On the loop's thread, or before the loop runs. Costs a few system calls; each signal one entry of the inbox per
    /// loop. Source: asyncio's `add_signal_handler`, which knows the main thread alone.
    /// - Throws: `.invalidSignal` for `SIGKILL`, `SIGSTOP`, faults (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`, `SIGTRAP`)
    ///   and numbers that are none; `.closed`, `.forked`, `.wrongThread`; `.io` when memory is short.
    public func onSignal(_ number: Int32, _ body: @escaping () throws -> Void) throws(LoopError) {
        try core.onSignal(number, body)
    }

    /// Takes the callback of ``onSignal(_:_:)`` away, also for a signal that has come already and was not told yet.
    /// When no loop is left that wants the signal, the process does again what it did before, unless somebody else has
    /// changed that meanwhile.
    ///
    /// On the loop's thread, or it traps. Source: asyncio's `remove_signal_handler`.
    /// - Returns: Whether there was a callback. False on a closed loop, and for numbers that cannot have one.
    @discardableResult
    public func removeSignalHandler(_ number: Int32) -> Bool { core.removeSignalHandler(number) }

    /// The numbers of these signals as they come, from this call on, for one reader.
    ///
    /// What comes while nobody reads is kept, each number once, and handed out with the lowest number first. The
    /// sequence ends when the loop is closed, and when a task that waits in it is cancelled. It lets the signals go
    /// then, or when it and its iterators are dropped. It is independent of ``onSignal(_:_:)``, and of other sequences.
    ///
    /// On the loop's thread, or before the loop runs; reading it on any thread.
    /// - Throws: As ``onSignal(_:_:)``.
    public func signals(_ numbers: Int32...) throws(LoopError) -> LoopSignals {
        LoopSignals(subscription: try core.subscribe(numbers))
    }
}

/// Signals as they come. See ``Loop/signals(_:)``.
public struct LoopSignals: AsyncSequence, Sendable {
    public typealias Element = Int32
    public typealias Failure = Never
    fileprivate let subscription: SignalSubscription

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(subscription: subscription) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let subscription: SignalSubscription

        /// The number of the next signal; `nil`: the sequence has ended.
        public mutating func next() async -> Int32? { await next(isolation: nil) }

        public mutating func next(isolation actor: isolated (any Actor)?) async -> Int32? {
            await subscription.next(isolation: actor)
        }
    }
}

/// Ends with its last reader. Any thread.
private final class SignalSubscription: Sendable {
    private let core: LoopCore
    private let buffer: SignalBuffer

    init(_ core: LoopCore, _ buffer: SignalBuffer) {
        self.core = core
        self.buffer = buffer
    }

    deinit { end() }

    private func end() {
        buffer.end(keepingPending: false)
        if core.isOnLoop {
            core.unsubscribe(buffer)
        } else {
            try? core.callSoonThreadsafe { [core, buffer] in core.unsubscribe(buffer) }
        }
    }

    func next(isolation actor: isolated (any Actor)?) async -> Int32? {
        await withTaskCancellationHandler {
            await buffer.next(isolation: actor)
        } onCancel: {
            end()
        }
    }
}

/// Signals that have come and were not read, and those who wait for one. Any thread.
final class SignalBuffer: Sendable {
    private struct State {
        /// A bit for each number, the lowest for 1.
        var pending: UInt64 = 0
        var waiting: [UnsafeContinuation<Int32?, Never>] = []
        var isOver = false

        mutating func take() -> Int32? {
            guard pending != 0 else { return nil }
            let number = pending.trailingZeroBitCount + 1
            pending &= pending - 1
            return Int32(number)
        }
    }

    private let state = Lock(State())

    func note(_ number: Int32) {
        let waiter = state.withLock { state -> UnsafeContinuation<Int32?, Never>? in
            if state.isOver { return nil }
            guard state.waiting.isEmpty else { return state.waiting.removeFirst() }
            state.pending |= 1 << UInt64(number - 1)
            return nil
        }
        waiter?.resume(returning: number)
    }

    func next(isolation actor: isolated (any Actor)?) async -> Int32? {
        await withUnsafeContinuation { continuation in
            let answer = state.withLock { state -> Int32?? in
                if let number = state.take() { return .some(number) }
                if state.isOver { return .some(nil) }
                state.waiting.append(continuation)
                return nil
            }
            if let answer { continuation.resume(returning: answer) }
        }
    }

    func end(keepingPending: Bool) {
        let waiting = state.withLock { state in
            state.isOver = true
            if !keepingPending { state.pending = 0 }
            defer { state.waiting = [] }
            return state.waiting
        }
        for waiter in waiting { waiter.resume(returning: nil) }
    }
}

/// Who on one loop is told of which signal. On the loop's thread.
final class SignalTable: @unchecked Sendable {
    fileprivate struct Entry {
        let record: OpaquePointer
        var body: (() throws -> Void)?
        var buffers: [SignalBuffer] = []
        var isWanted: Bool { body != nil || !buffers.isEmpty }
    }

    fileprivate var entries: [Int32: Entry] = [:]
}

extension LoopCore {
    fileprivate func onSignal(_ number: Int32, _ body: @escaping () throws -> Void) throws(LoopError) {
        try check("onSignal")
        var entry = try signalEntry(number, "onSignal")
        let before = entry.body
        entry.body = body
        signals.entries[number] = entry
        withExtendedLifetime(before) {}  // what it captured may call back in
    }

    fileprivate func removeSignalHandler(_ number: Int32) -> Bool {
        if lc_loop_is_closed(loop) || lc_loop_is_forked(loop) { return false }
        precondition(
            isOnLoop || !lc_loop_is_running(loop),
            "Remove a signal's handler on its loop's thread, or with callSoonThreadsafe(_:).")
        guard let body = signals.entries[number]?.body.take() else { return false }
        releaseIfUnwanted(number)
        withExtendedLifetime(body) {}
        return true
    }

    fileprivate func subscribe(_ numbers: [Int32]) throws(LoopError) -> SignalSubscription {
        try check("signals")
        let buffer = SignalBuffer()
        do throws(LoopError) {
            for number in numbers {
                var entry = try signalEntry(number, "signals")
                if !entry.buffers.contains(where: { $0 === buffer }) { entry.buffers.append(buffer) }
                signals.entries[number] = entry
            }
        } catch {
            unsubscribe(buffer)
            throw error
        }
        return SignalSubscription(self, buffer)
    }

    fileprivate func unsubscribe(_ buffer: SignalBuffer) {
        for number in signals.entries.keys {
            signals.entries[number]?.buffers.removeAll { $0 === buffer }
            releaseIfUnwanted(number)
        }
    }

    private func signalEntry(_ number: Int32, _ operation: String) throws(LoopError) -> SignalTable.Entry {
        if let entry = signals.entries[number] { return entry }
        var record: OpaquePointer?
        let result = lc_signal_add(loop, number, &record)
        if result == -EINVAL { throw .invalidSignal(number) }
        guard result == 0, let record else { throw LoopError(core: result, operation: operation) }
        return SignalTable.Entry(record: record)
    }

    private func releaseIfUnwanted(_ number: Int32) {
        guard let entry = signals.entries[number], !entry.isWanted else { return }
        signals.entries[number] = nil
        lc_signal_remove(entry.record)
    }

    func deliverSignal(_ record: OpaquePointer?) {
        let number = lc_signal_number(record)
        guard let entry = signals.entries[number] else { return }
        for buffer in entry.buffers { buffer.note(number) }
        guard let body = entry.body else { return }
        do { try body() } catch { report(error, "callback of a signal", signal: number) }
    }

    /// At the end of a close.
    func dropSignals() {
        let entries = signals.entries
        signals.entries = [:]
        for entry in entries.values {
            lc_signal_remove(entry.record)
            for buffer in entry.buffers { buffer.end(keepingPending: true) }
        }
    }
}
