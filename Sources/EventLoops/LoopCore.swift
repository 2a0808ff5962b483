// SPDX-License-Identifier: Apache-2.0
//
// LoopCore.swift: the engine behind both loops: the C loop, the closures it does not know, and the pass.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The engine of a loop. Both kinds have one; what differs between them lies below, in C.
///
/// Its members are the library's own. A type of yours that decorates a ``Loop`` hands on the `core` of the loop it
/// decorates.
public final class LoopCore: @unchecked Sendable {
    /// The C loop. Lives as long as this object, so other threads may post to it at any time.
    let loop: OpaquePointer
    let services = LoopServices()
    /// The loop this is the engine of. Weak, as the loop owns us.
    private let facade = Lock<WeakLoop>(WeakLoop())
    let errorHook = Lock(ErrorHook())
    let debug = DebugSettings()
    /// Told when the loop is closed.
    let dependents = Dependents()
    /// The two executors, and the same as the runtime wants them. The loop owns them and is alive while it runs.
    private var taskExecutor: Unmanaged<LoopTaskExecutor>?
    private var serialExecutor: Unmanaged<LoopSerialExecutor>?
    @exclusivity(unchecked) private var asTaskExecutor: UnownedTaskExecutor?
    @exclusivity(unchecked) private var asSerialExecutor: UnownedSerialExecutor?

    let signals = SignalTable()
    let driving = Driving()

    private struct WeakLoop { weak var value: (any Loop)? }

    init(options: lc_options, operation: String) throws(LoopError) {
        var created: OpaquePointer?
        let result = withUnsafePointer(to: options) { lc_loop_create($0, &created) }
        guard result == 0, let created else {
            let unavailability = LoopUnavailability(errno: result)
            if options.backend == LC_BACKEND_PROACTOR.rawValue, unavailability.allowsFallback {
                throw .unavailable(unavailability)
            }
            throw .io(IOError(errno: result, operation: operation))
        }
        loop = created
        lc_loop_set_owner(loop, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit { lc_loop_free(loop) }

    func adopt(_ facade: any Loop) {
        self.facade.withLock { $0.value = facade }
        taskExecutor = Unmanaged.passUnretained(facade.taskExecutor)
        serialExecutor = Unmanaged.passUnretained(facade.serialExecutor)
        asTaskExecutor = facade.taskExecutor.asUnownedTaskExecutor()
        asSerialExecutor = facade.serialExecutor.asUnownedSerialExecutor()
    }

    var facadeLoop: (any Loop)? { facade.withLock { $0.value } }

    /// The engine that runs on this thread.
    static var current: LoopCore? {
        guard let running = lc_loop_current(), let owner = lc_loop_owner(running) else { return nil }
        return Unmanaged<LoopCore>.fromOpaque(owner).takeUnretainedValue()
    }

    var isOnLoop: Bool { lc_loop_current() == loop }

    // MARK: Run

    private enum Passes {
        case none
        case once(PassMode)
        case untilIdle
        case untilStopped
    }

    func enter() throws(LoopError) {
        switch lc_loop_enter(loop) {
        case 0: break
        case -EBADF: throw .closed
        case -EALREADY: throw .alreadyRunning
        case -EDEADLK: throw .anotherLoopRunning
        case -EOWNERDEAD: throw .forked
        case -EXDEV: throw .boundToAnotherThread
        case let result: throw LoopError(core: result, operation: "run")
        }
    }

    private func run(_ passes: Passes) throws(LoopError) {
        try enter()
        defer { lc_loop_leave(loop) }
        if case .none = passes { return }
        try inTask { () throws(LoopError) in try makePasses(passes) }
    }

    func inTask(_ body: () throws(LoopError) -> Void) throws(LoopError) {
        if withUnsafeCurrentTask(body: { $0 != nil }) { return try body() }
        // When a job ends, the runtime goes back to the task around it, if there is one. A parked task has left its job
        // without a word, so there has to be one, or it would be taken for the current task.
        let outcome = Outcome<Void>()
        withoutActuallyEscaping(body) { body in
            nonisolated(unsafe) let body = body
            Task.immediate { outcome.set(Result { try body() }) }
        }
        do { try outcome.take()?.get() } catch { throw error as! LoopError }
    }

    private func makePasses(_ passes: Passes) throws(LoopError) {
        switch passes {
        case .none: break
        case .once(let mode):
            try pass(mode == .wait ? LC_WAIT_EVENT : LC_WAIT_NONE)
            _ = lc_loop_take_stop(loop)
        case .untilIdle:
            repeat { try pass(LC_WAIT_WHILE_ALIVE) } while !lc_loop_take_stop(loop) && lc_loop_is_alive(loop)
        case .untilStopped:
            repeat { try pass(LC_WAIT_EVENT) } while !lc_loop_take_stop(loop)
        }
    }

    func pass(_ wait: lc_wait) throws(LoopError) {
        let result = lc_loop_tick(loop, wait)
        deliver()
        if driving.aborted != nil { throw takeAbort() }
        if result < 0 { throw LoopError(core: result, operation: "wait for events") }
    }

    func run() throws(LoopError) { try run(.untilStopped) }
    func runUntilIdle() throws(LoopError) { try run(.untilIdle) }
    func runOnce(_ mode: PassMode) throws(LoopError) { try run(.once(mode)) }

    func run<Success>(
        until body: sending @escaping () async throws -> Success, on executor: LoopTaskExecutor
    ) throws -> Success {
        let outcome = Outcome<Success>()
        defer { outcome.isAwaited = false }
        // Fail before the task exists: a task that cannot run would wait for ever.
        try run(.none)
        Task(executorPreference: executor) {
            do { outcome.set(.success(try await self.withParking(body))) } catch { outcome.set(.failure(error)) }
            // Through the ready list: what the body queued before it ended comes first.
            _ = try? Self.callSoon(self.loop) { if outcome.isAwaited { lc_loop_stop(self.loop) } }
        }
        do { try run() } catch .aborted(let reason) { throw reason.error }
        guard let result = outcome.take() else { throw LoopError.stoppedBeforeCompletion }
        return try result.get()
    }

    /// Phase 7: the one place where user code runs.
    private func deliver() {
        if debug.isOn { return deliverTimed() }
        while let node = lc_loop_next(loop) { deliver(node) }
    }

    func deliver(_ node: UnsafeMutablePointer<lc_node>) {
        switch lc_kind(rawValue: UInt32(truncatingIfNeeded: node.pointee.kind)) {
        case LC_KIND_RECEIVE: deliverReceive(lc_stream_delivery(node))
        case LC_KIND_JOB_TASK, LC_KIND_JOB_SERIAL:
            let job = UnsafeMutableRawPointer(node) - MemoryLayout<lc_job>.offset(of: \.node)!
            run(job, lc_kind(rawValue: UInt32(truncatingIfNeeded: node.pointee.kind)))
        case LC_KIND_SEND:
            let stream = lc_node_stream(node)
            let waiter = lc_stream_send_waiter_due(stream)
            if lc_stream_take_room(stream) { Connection.of(stream)?.deliverRoom() }
            resume(waiter)
        case LC_KIND_CALL: deliverCall(node)
        case LC_KIND_SLEEP: resume(node.withMemoryRebound(to: lc_call.self, capacity: 1) { $0.pointee.word })
        case LC_KIND_OP: deliverOperation(node)
        case LC_KIND_ACCEPT: deliverAccept(lc_node_listener(node))
        case LC_KIND_POST: deliverPost(node)
        case LC_KIND_CLOSED: resume(lc_stream_closed_waiter(lc_node_stream(node)))
        case LC_KIND_SIGNAL: deliverSignal(lc_node_signal(node))
        default: assertionFailure("the core delivered an entry of its own")
        }
    }

    @inline(__always)
    private func run(_ job: UnsafeMutableRawPointer, _ kind: lc_kind) {
        let job = UnownedJob(record: job)
        if kind == LC_KIND_JOB_TASK {
            job.runSynchronously(on: asTaskExecutor.unsafelyUnwrapped)
        } else {
            job.runSynchronously(on: asSerialExecutor.unsafelyUnwrapped)
        }
    }

    /// Resumes a waiter, and runs it here and now if it belongs to this loop: it is what the entry was delivered for.
    @inline(__always)
    func resume(_ waiter: UInt64) {
        guard waiter != 0 else { return }
        if waiter & UInt64(LC_WAITER_PARKED) != 0 { return runParked(waiter & ~UInt64(LC_WAITER_PARKED)) }
        lc_loop_begin_resume(loop)
        Waiter(word: waiter).resume()
        var kind = LC_KIND_NONE
        if let job = lc_loop_end_resume(loop, &kind) { run(job, kind) }
    }

    private func runParked(_ task: UInt64) {
        let record = UnsafeMutableRawPointer(bitPattern: UInt(task)).unsafelyUnwrapped
        if lc_loop_is_closed(loop) {
            taskExecutor?.takeUnretainedValue().runOrphan(UnownedJob(record: record))
        } else {
            run(record, LC_KIND_JOB_TASK)
        }
    }

    private func deliverOperation(_ node: UnsafeMutablePointer<lc_node>) {
        node.withMemoryRebound(to: lc_op.self, capacity: 1) { op in
            switch op.pointee.word {
            case 0: deliverWatched(op)
            case UInt64(LC_WORD_DATAGRAM): DatagramSocket.deliver(op)
            default: resume(op.pointee.word)
            }
        }
    }

    @inline(__always)
    private func deliverReceive(_ delivery: lc_delivery) {
        if delivery.waiter != 0 { return resume(delivery.waiter) }
        Connection.deliverReceived(delivery.word)
    }

    private func deliverAccept(_ listener: OpaquePointer?) {
        let waiter = lc_listener_waiter(listener)
        if waiter != 0 { return resume(waiter) }
        Listener.of(listener)?.deliverAccepted()
    }

    private func deliverCall(_ node: UnsafeMutablePointer<lc_node>) {
        run(node.withMemoryRebound(to: lc_call.self, capacity: 1) { Callback.take(lc_call_place($0)) })
    }

    private func deliverPost(_ node: UnsafeMutablePointer<lc_node>) {
        run(node.withMemoryRebound(to: lc_post.self, capacity: 1) { Self.take($0) })
    }

    @inline(__always)
    private func run(_ callback: Callback) {
        do { try callback.run() } catch { report(error, "callback") }
    }

    // MARK: Calls

    // Static, and given the C loop: see `Loop.uncountedCore`.

    /// Callbacks and operations belong on the loop's thread while it runs.
    func check(_ operation: StaticString) throws(LoopError) {
        if lc_loop_current() != loop { try Self.check(loop, operation) }
    }

    /// For calls that wait: they need the loop to run, and this thread to be its own.
    func checkOnLoop(_ operation: StaticString) throws(LoopError) {
        if isOnLoop { return }
        try check(operation)
        throw wrongThread("\(operation)")
    }

    private static func check(_ loop: OpaquePointer, _ operation: StaticString) throws(LoopError) {
        if lc_loop_is_forked(loop) { throw .forked }
        if lc_loop_is_closed(loop) { throw .closed }
        if lc_loop_is_running(loop) { throw wrongThread(loop, "\(operation)") }
    }

    static func callSoon(
        _ loop: OpaquePointer, _ body: consuming @escaping () throws -> Void
    ) throws(LoopError) -> Handle {
        if lc_loop_current() != loop {
            try check(loop, "callSoon")
            // Not running: what this thread handed over before must come first.
            lc_loop_drain_inbox(loop)
        }
        var call: UnsafeMutablePointer<lc_call>?
        let result = lc_call_soon_body(loop, &call)
        guard result == 0, let call else { throw refusal(result, "callSoon") }
        Callback.put(body, lc_call_place(call))
        return Handle(lc_loop_number(loop), call)
    }

    static func callAt(
        _ loop: OpaquePointer, _ deadline: LoopInstant, _ body: consuming @escaping () throws -> Void
    ) throws(LoopError) -> Handle {
        if lc_loop_current() != loop { try check(loop, "callAt") }
        var call: UnsafeMutablePointer<lc_call>?
        let result = lc_call_at_body(loop, deadline.nanoseconds, &call)
        guard result == 0, let call else { throw refusal(result, "callAt") }
        Callback.put(body, lc_call_place(call))
        return Handle(lc_loop_number(loop), call)
    }

    @inline(never)
    private static func refusal(_ result: Int32, _ operation: String) -> LoopError {
        result == -EBADF ? .closed : LoopError(core: result, operation: operation)
    }

    static func callSoonThreadsafe(
        _ loop: OpaquePointer, _ body: consuming @escaping @Sendable () throws -> Void
    ) throws(LoopError) {
        guard let post = lc_post_make() else { throw refusal(-ENOMEM, "callSoonThreadsafe") }
        Callback.put(body, lc_post_place(post))
        if lc_loop_post(loop, post) < 0 {
            drop(post)
            throw lc_loop_is_forked(loop) ? .forked : .closed
        }
    }

    func callSoonThreadsafe(_ body: @escaping @Sendable () throws -> Void) throws(LoopError) {
        try Self.callSoonThreadsafe(loop, body)
    }

    private static func drop(_ post: UnsafeMutablePointer<lc_post>) {
        let callback = take(post)
        withExtendedLifetime(callback) {}
    }

    @inline(__always)
    private static func take(_ post: UnsafeMutablePointer<lc_post>) -> Callback {
        defer { lc_post_free(post) }
        return Callback.take(lc_post_place(post))
    }

    // MARK: Close

    func close() throws(LoopError) {
        if lc_loop_close(loop) == -EBUSY { throw .running }
        let dependents = dependents.take()
        // What waited is told, or dropped. A callback's captures may call back in, so the list is walked to its end.
        while let node = lc_loop_drop_next(loop) { drop(node) }
        var slot: UInt32 = 0
        while let call = lc_call_left_over(loop, &slot) { Callback.drop(lc_call_place(call)) }
        dropWatchers()
        dropSignals()
        if !lc_loop_is_forked(loop) { services.close() }
        dropDatagramSockets()
        Dependents.tell(dependents, isForked: lc_loop_is_forked(loop))
    }

    /// The loop object is gone. Unless somebody still needs the engine, this is its end.
    func abandoned() {
        if !lc_loop_is_closed(loop) && !lc_loop_is_forked(loop) {
            writeToStandardError("swift-event-loops: a loop was dropped without close(); closing it now.")
        }
        try? close()
    }

    private func drop(_ node: UnsafeMutablePointer<lc_node>) {
        switch lc_kind(rawValue: UInt32(truncatingIfNeeded: node.pointee.kind)) {
        case LC_KIND_CALL:
            node.withMemoryRebound(to: lc_call.self, capacity: 1) { Callback.drop(lc_call_place($0)) }
        case LC_KIND_POST: node.withMemoryRebound(to: lc_post.self, capacity: 1) { Self.drop($0) }
        case LC_KIND_JOB_TASK, LC_KIND_JOB_SERIAL:
            let raw = UnsafeMutableRawPointer(node) - MemoryLayout<lc_job>.offset(of: \.node)!
            let job = UnownedJob(record: raw)
            if lc_kind(rawValue: UInt32(truncatingIfNeeded: node.pointee.kind)) == LC_KIND_JOB_TASK {
                taskExecutor?.takeUnretainedValue().runOrphan(job)
            } else {
                serialExecutor?.takeUnretainedValue().runOrphan(job)
            }
        case LC_KIND_SIGNAL: break  // the loop is told of signals no more
        case LC_KIND_RECEIVE where !lc_stream_receive_waits(lc_node_stream(node)):
            Connection.loopClosed(lc_node_stream(node))
        case LC_KIND_ACCEPT where !lc_listener_waits(lc_node_listener(node)):
            Listener.of(lc_node_listener(node))?.loopClosed()
        default: deliver(node)  // waiters: they find the loop closed
        }
    }
}

/// What a body came to. Written by its task, read by the thread that ran the loop, which the loop orders.
private final class Outcome<Success>: @unchecked Sendable {
    private var result: Result<Success, any Error>?
    /// Whether a run waits for this body. One that was left over must not stop a later run.
    var isAwaited = true
    func set(_ result: Result<Success, any Error>) { self.result = result }
    func take() -> Result<Success, any Error>? { result.take() }
}
