// SPDX-License-Identifier: Apache-2.0
//
// Operation.swift: the one place where a continuation and a record of the core meet.

import CLoopCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A suspended task as the core carries it: one word.
struct Waiter {
    let word: UInt64
    init(word: UInt64) { self.word = word }
    init(_ continuation: UnsafeContinuation<Void, Never>) {
        word = UInt64(UInt(bitPattern: unsafeBitCast(continuation, to: UnsafeRawPointer.self)))
    }

    @inline(__always)
    func resume() {
        let pointer = UnsafeRawPointer(bitPattern: UInt(word)).unsafelyUnwrapped
        unsafeBitCast(pointer, to: UnsafeContinuation<Void, Never>.self).resume()
    }
}

/// Something a task can wait at. A cancelled task asks it, on any thread, to end the wait.
///
/// Public only because ``Connection`` and ``Listener`` are.
public class WaitingPlace: @unchecked Sendable {
    init() {}
    func cancelReceive() {}
    func cancelSend() {}
}

@_cdecl("event_loops_cancel_receive")
func cancelReceive(_ object: UnsafeMutableRawPointer) {
    Unmanaged<WaitingPlace>.fromOpaque(object).takeUnretainedValue().cancelReceive()
}

@_cdecl("event_loops_cancel_send")
func cancelSend(_ object: UnsafeMutableRawPointer) {
    Unmanaged<WaitingPlace>.fromOpaque(object).takeUnretainedValue().cancelSend()
}

extension WaitingPlace {
    /// Suspends the task until the word given to `start` is delivered, or `start` returns an error. A cancel calls
    /// ``cancelReceive()``. Must stay inlined: see lc_swift.h for what a frame costs.
    @inline(__always)
    final nonisolated(nonsending) func waitToReceive(_ start: (UInt64) -> Int32) async -> Int32 {
        let record = lc_set_cancel_receive(Unmanaged.passUnretained(self).toOpaque())
        defer { lc_unset_cancel(record) }
        return await waitUncancelled(start)
    }

    /// The same for the sending side: a cancel calls ``cancelSend()``.
    @inline(__always)
    final nonisolated(nonsending) func waitToSend(_ start: (UInt64) -> Int32) async -> Int32 {
        let record = lc_set_cancel_send(Unmanaged.passUnretained(self).toOpaque())
        defer { lc_unset_cancel(record) }
        return await waitUncancelled(start)
    }
}

/// Suspends the task until the word given to `start` is delivered, or `start` returns an error; no cancel shortens it.
@inline(__always)
nonisolated(nonsending) func waitUncancelled(_ start: (UInt64) -> Int32) async -> Int32 {
    var result: Int32 = 0
    await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
        result = start(Waiter(continuation).word)
        if result < 0 { continuation.resume() }
    }
    return result
}

/// Suspends the current task until the stream has something to take: without the runtime, which believes that the task
/// still runs. Where `lc_stream_may_park` says so, called without isolation. See tasks.c.
@_silgen_name("lc_park_receive")
@usableFromInline
nonisolated(nonsending) func parkToReceive(_ stream: OpaquePointer) async

extension LoopCore {
    /// Runs the body of a spawned task. One cancel handler serves all its waits at streams.
    func withParking<Success>(
        _ body: () async throws -> Success
    ) async rethrows -> Success {
        guard isOnLoop else { return try await body() }
        let task = lc_task_enter(loop)
        defer { if isOnLoop { lc_task_leave(loop, task) } }
        return try await withTaskCancellationHandler {
            try await body()
        } onCancel: {
            self.cancelSoon { lc_task_cancel(self.loop, task) }
        }
    }

    /// Hands `body` to the loop's thread for a cancel; a loop that is closed has ended the wait already.
    func cancelSoon(_ body: @escaping @Sendable () -> Void) { try? callSoonThreadsafe(body) }

    // MARK: Sleep

    nonisolated(nonsending) func sleep(until deadline: LoopInstant) async throws(LoopError) {
        try check("sleep")
        guard isOnLoop else { throw wrongThread("sleep") }
        let sleep = Sleep(self)
        let result = await sleep.waitToReceive {
            lc_call_at(loop, LC_KIND_SLEEP, deadline.nanoseconds, $0, &sleep.id)
        }
        if result < 0 { throw result == -EBADF ? .closed : LoopError(core: result, operation: "sleep") }
        sleep.over = true
        if sleep.cancelled { throw .cancelled(operation: "sleep") }
        if lc_loop_is_closed(loop) { throw .closed }
    }

    // MARK: Readiness

    nonisolated(nonsending) func poll(_ descriptor: Int32, write: Bool) async throws(LoopError) {
        let operation = write ? "writable" : "readable"
        try check("poll")
        guard isOnLoop else { throw wrongThread(operation) }
        guard let op = lc_op_make(loop) else { throw .io(IOError(errno: ENOMEM, operation: operation)) }
        let poll = Poll(self, op)
        let result = await poll.waitToReceive { lc_op_poll(loop, op, descriptor, write, $0) }
        poll.over = true
        let outcome = result < 0 ? result : op.pointee.result
        if !lc_loop_is_closed(loop) { lc_op_release(loop, op) }
        switch outcome {
        case 0...: return
        case -EPERM: throw .notPollable(descriptor: descriptor)
        case -EEXIST: throw .ownedByTransport(descriptor: descriptor)
        case -ECANCELED where lc_loop_is_closed(loop): throw .closed
        default: throw LoopError(core: outcome, operation: operation)
        }
    }
}

/// A sleep, as its cancel sees it. On the loop's thread.
private final class Sleep: WaitingPlace, @unchecked Sendable {
    let core: LoopCore
    var id = lc_call_id()
    var over = false
    var cancelled = false
    init(_ core: LoopCore) { self.core = core }

    override func cancelReceive() { core.cancelSoon { self.cancel() } }

    private func cancel() {
        var word: UInt64 = 0
        guard !over, lc_call_cancel(core.loop, id, &word) == 1 else { return }
        cancelled = true
        core.resume(word)
    }
}

/// A wait for readiness, as its cancel sees it. On the loop's thread.
private final class Poll: WaitingPlace, @unchecked Sendable {
    let core: LoopCore
    let op: UnsafeMutablePointer<lc_op>
    var over = false
    init(_ core: LoopCore, _ op: UnsafeMutablePointer<lc_op>) {
        self.core = core
        self.op = op
    }

    override func cancelReceive() { core.cancelSoon { self.cancel() } }

    private func cancel() {
        if !over { lc_op_cancel(core.loop, op) }
    }
}
