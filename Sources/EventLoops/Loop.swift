// SPDX-License-Identifier: Apache-2.0
//
// Loop.swift: the protocol both loops meet, and the surface that comes with it.

import CLoopCore

/// An event loop: callbacks, timers, tasks and I/O on one thread.
///
/// ``SelectorLoop`` and ``ProactorLoop`` meet it with the same behaviour. A loop belongs to whoever made it until
/// ``run()``, and to the thread that runs it from then on. Unless a member says *any thread*, call it on the loop's
/// thread, or before the loop runs. Source: asyncio's `AbstractEventLoop`.
public protocol Loop: AnyObject, Sendable {
    /// The engine. A type that decorates a loop hands on the loop's own.
    var core: LoopCore { get }
    /// What ``core`` is about, without counting a reference to it: callers on many threads would pass the count from
    /// processor to processor. The default asks ``core``, which has to live as long as the loop.
    var uncountedCore: OpaquePointer { get }
    /// Which kind of loop this is, who chose it, and why.
    var selection: LoopSelection { get }
    /// Runs tasks on the loop's thread: `Task(executorPreference: loop.taskExecutor) { }`. Any thread.
    var taskExecutor: LoopTaskExecutor { get }
    /// Isolates an actor to the loop's thread: return its `asUnownedSerialExecutor()`. Any thread.
    var serialExecutor: LoopSerialExecutor { get }
}

extension Loop {
    public var uncountedCore: OpaquePointer { core.loop }

    // MARK: Run, stop, close

    /// Runs until ``stop()``. With nothing to do it sleeps; it does not return by itself.
    /// - Throws: `.closed`, `.alreadyRunning`, `.anotherLoopRunning`, `.forked`, `.boundToAnotherThread`.
    public func run() throws(LoopError) { try core.run() }

    /// Runs until nothing is left that could still happen without another thread: no callback, timer or operation.
    public func runUntilIdle() throws(LoopError) { try core.runUntilIdle() }

    /// Runs one pass.
    public func runOnce(_ mode: PassMode = .wait) throws(LoopError) { try core.runOnce(mode) }

    /// Runs `body` as a task of this loop, and the loop until `body` is done.
    ///
    /// Callbacks queued in the pass in which `body` ends still run.
    /// - Returns: What `body` returned.
    /// - Throws: What `body` threw; `.stoppedBeforeCompletion` if the loop was stopped first, in which case `body`
    ///   goes on when the loop runs again; else as ``run()``.
    public func run<Success>(until body: sending @escaping () async throws -> Success) throws -> Success {
        try core.run(until: body, on: taskExecutor)
    }

    /// Asks ``run()`` to return at the end of the pass. What is ready at the start of the pass still runs; what that
    /// adds waits for the next run. Before `run`, it allows one pass that does not sleep. Any thread.
    public func stop() { lc_loop_stop(core.loop) }

    /// Closes the loop for good. Callbacks and timers are dropped unrun; waits end with `.closed` or
    /// `.connectionClosed`; every descriptor the loop owns is closed, but for the one that wakes it, which goes
    /// with the object. Calling it again does nothing.
    /// - Throws: `.running`.
    public func close() throws(LoopError) { try core.close() }

    /// Whether ``close()`` has been called.
    public var isClosed: Bool { lc_loop_is_closed(core.loop) }

    /// Whether the loop runs now.
    public var isRunning: Bool { lc_loop_is_running(core.loop) }

    /// Whether the calling thread is the one that runs this loop now. Any thread.
    public var isOnLoop: Bool { core.isOnLoop }

    /// The mechanism in use: `"epoll"`, `"poll"`, `"select"` or `"io_uring"`.
    public var backend: String { String(cString: lc_loop_backend_name(core.loop)) }

    // MARK: Time

    /// The monotonic clock, read now: it is not cached per pass. Any thread.
    public var now: LoopInstant { .now }

    // MARK: Callbacks and timers

    /// Queues `body` for the next pass, behind what is queued already. What it throws goes to ``onUnhandledError``.
    /// - Returns: A handle that can cancel it. The call allocates nothing beyond the closure itself.
    /// - Throws: `.closed`, `.forked`, `.wrongThread`.
    @discardableResult
    public func callSoon(_ body: consuming @escaping () throws -> Void) throws(LoopError) -> Handle {
        try LoopCore.callSoon(uncountedCore, body)
    }

    /// Queues `body` from any thread, and wakes the loop if it sleeps. Calls of one thread keep their order, also with
    /// ``callSoon(_:)`` of that thread. Allocates nothing beyond the closure itself, but for a page now and then. Any
    /// thread.
    /// - Throws: `.closed`, `.forked`; `.io` when memory is short.
    public func callSoonThreadsafe(_ body: consuming @escaping @Sendable () throws -> Void) throws(LoopError) {
        try LoopCore.callSoonThreadsafe(uncountedCore, body)
    }

    /// Runs `body` once `delay` has passed; never earlier. A negative delay runs in the next pass, in order of time.
    @discardableResult
    public func callLater(
        _ delay: Duration, _ body: consuming @escaping () throws -> Void
    ) throws(LoopError) -> Handle {
        try callAt(.now.advanced(by: delay), body)
    }

    /// Runs `body` at `deadline`; never earlier. Equal deadlines run in the order they were set.
    @discardableResult
    public func callAt(
        _ deadline: LoopInstant, _ body: consuming @escaping () throws -> Void
    ) throws(LoopError) -> Handle {
        try LoopCore.callAt(uncountedCore, deadline, body)
    }

    /// Told of errors that callbacks throw, and of those no caller waits for. `nil`: they go to standard error.
    ///
    /// If reporting in the hook fails in its turn, that error goes to standard error, and the loop goes on. Any thread.
    /// Source: asyncio's `set_exception_handler`.
    public var onUnhandledError: (@Sendable (any Loop, UnhandledError) -> Void)? {
        get { core.onUnhandledError }
        set { core.onUnhandledError = newValue }
    }

    // MARK: Tasks

    /// Starts a task that stays on this loop's thread, as do its child tasks. Any thread.
    @discardableResult
    public func spawn<Success: Sendable>(
        name: String? = nil,
        priority: TaskPriority? = nil,
        _ body: sending @escaping () async throws -> Success
    ) -> Task<Success, any Error> {
        let core = core
        return Task(name: name, executorPreference: taskExecutor, priority: priority) {
            try await core.withParking(body)
        }
    }

    /// Waits for `duration`, at least. On the loop's thread.
    /// - Throws: `.cancelled` if the task is; `.closed` if the loop is.
    nonisolated(nonsending) public func sleep(for duration: Duration) async throws(LoopError) {
        try await core.sleep(until: .now.advanced(by: duration))
    }

    /// Waits until `deadline`, at least. On the loop's thread.
    nonisolated(nonsending) public func sleep(until deadline: LoopInstant) async throws(LoopError) {
        try await core.sleep(until: deadline)
    }

    // MARK: Descriptors

    /// Waits until `descriptor` can be read from, has ended, or has an error. On the loop's thread.
    /// - Throws: `.notPollable`, `.ownedByTransport`, `.busy`, `.cancelled`, `.closed`.
    nonisolated(nonsending) public func readable(_ descriptor: Int32) async throws(LoopError) {
        try await core.poll(descriptor, write: false)
    }

    /// Waits until `descriptor` can be written to, or has an error. On the loop's thread.
    nonisolated(nonsending) public func writable(_ descriptor: Int32) async throws(LoopError) {
        try await core.poll(descriptor, write: true)
    }

    // MARK: Looking in

    /// Counters of this loop. On the loop's thread, or while it does not run.
    public var statistics: LoopStatistics { LoopStatistics(core.loop) }
}

/// Whether one pass may sleep.
public enum PassMode: Sendable {
    /// Until something happens.
    case wait
    /// Not at all.
    case noWait
}
