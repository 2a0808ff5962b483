// SPDX-License-Identifier: Apache-2.0
//
// Driving.swift: a run that is ended at once, and passes that somebody else's loop drives.

import CLoopCore

/// What a run was aborted with. Each call of ``Loop/abort(throwing:)`` makes one, equal to itself alone.
public struct AbortReason: Sendable, Hashable, CustomStringConvertible {
    private final class Box: Sendable {
        let error: any Error
        init(_ error: any Error) { self.error = error }
    }

    private let box: Box

    public init(_ error: any Error) { box = Box(error) }

    /// What was thrown.
    public var error: any Error { box.error }

    public var description: String { "\(error)" }
    public static func == (left: AbortReason, right: AbortReason) -> Bool { left.box === right.box }
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(box)) }
}

extension Loop {
    /// Ends the run with an error, as soon as the current callback, or the current stretch of a task, is over.
    ///
    /// ``run()``, ``runUntilIdle()``, ``runOnce(_:)`` and ``pass(_:)`` throw `.aborted`, which holds `error`;
    /// ``run(until:)`` throws `error` itself, and its body goes on when the loop runs again. What is queued stays,
    /// also what the current pass did not get to. A wish to stop is forgotten, as the run has ended. Of two calls for
    /// the same run, the first counts.
    ///
    /// On the loop's thread. Source: what asyncio does for `SystemExit` and `KeyboardInterrupt`.
    /// - Throws: `.noRunningLoop` while the loop does not run; `.wrongThread`.
    public func abort(throwing error: any Error) throws(LoopError) { try core.abort(throwing: error) }

    /// Makes this the loop that runs on this thread while `body` does, which makes the passes itself with
    /// ``pass(_:)``: for programs that have a loop already, of a user interface for one.
    ///
    ///     try loop.withRunning {
    ///         let descriptor = loop.backendFD
    ///         while try loop.pass() {
    ///             let timeout = loop.prepareToWait()
    ///             // wait at the descriptor for that long, and do other things
    ///         }
    ///     }
    ///
    /// Source: the set-up and clean-up halves of `run_forever` in asyncio 3.13.
    /// - Returns: What `body` returned.
    /// - Throws: What `body` threw; else as ``run()``.
    public func withRunning<Success>(_ body: () throws -> Success) throws -> Success { try core.withRunning(body) }

    /// Makes one pass, within ``withRunning(_:)``.
    /// - Returns: False if ``stop()`` was asked for: no more passes, please.
    /// - Throws: `.noRunningLoop` outside of `withRunning`; `.alreadyRunning` within a pass, or where ``run()`` makes
    ///   the passes; `.wrongThread`; `.aborted`.
    @discardableResult
    public func pass(_ mode: PassMode = .noWait) throws(LoopError) -> Bool { try core.drivenPass(mode) }

    /// To be called before each wait at ``backendFD``, after a pass, within ``withRunning(_:)``: from here on,
    /// until the next pass, other threads that hand something over make the descriptor readable.
    /// - Returns: For how long to wait at most; `nil`: until the descriptor is readable. Zero: something is ready.
    /// - Throws: As ``pass(_:)``.
    public func prepareToWait() throws(LoopError) -> Duration? { try core.prepareToWait() }

    /// The descriptor that is readable when a pass would find something, within ``withRunning(_:)`` and once
    /// ``prepareToWait()`` has returned: the loop's epoll or its ring. Deadlines do not make it readable.
    ///
    /// Wait at it and do nothing else with it. `nil` for a selector other than epoll, and where `/proc` is missing. Of
    /// a ``ProactorLoop`` that moves to another thread it changes. Costs a walk over the process's descriptors on a
    /// ``SelectorLoop``: ask once.
    public var backendFD: Int32? { core.backendFD }
}

/// On the loop's thread.
final class Driving: @unchecked Sendable {
    /// Looked at after each pass.
    @exclusivity(unchecked) fileprivate(set) var aborted: AbortReason?
    fileprivate var isDriven = false
    fileprivate var isInPass = false
}

extension LoopCore {
    fileprivate func abort(throwing error: any Error) throws(LoopError) {
        try checkRunningHere("abort")
        if driving.aborted == nil { driving.aborted = AbortReason(error) }
        lc_loop_end_pass(loop)
    }

    /// The run is over, and with it the wish to end it.
    func takeAbort() -> LoopError {
        let reason = driving.aborted.take()!
        _ = lc_loop_take_stop(loop)
        return .aborted(reason)
    }

    fileprivate func withRunning<Success>(_ body: () throws -> Success) throws -> Success {
        try enter()
        driving.isDriven = true
        defer {
            driving.isDriven = false
            driving.aborted = nil
            _ = lc_loop_take_stop(loop)
            lc_loop_leave(loop)
        }
        return try body()
    }

    private func checkRunningHere(_ operation: StaticString) throws(LoopError) {
        if isOnLoop { return }
        try check(operation)
        throw .noRunningLoop
    }

    private func checkDriven(_ operation: StaticString) throws(LoopError) {
        try checkRunningHere(operation)
        if !driving.isDriven || driving.isInPass { throw .alreadyRunning }
    }

    fileprivate func drivenPass(_ mode: PassMode) throws(LoopError) -> Bool {
        try checkDriven("pass")
        if driving.aborted != nil { throw takeAbort() }
        driving.isInPass = true
        defer { driving.isInPass = false }
        try inTask { () throws(LoopError) in try pass(mode == .wait ? LC_WAIT_EVENT : LC_WAIT_NONE) }
        return !lc_loop_take_stop(loop)
    }

    fileprivate func prepareToWait() throws(LoopError) -> Duration? {
        try checkDriven("prepareToWait")
        let nanoseconds = lc_loop_prepare_to_wait(loop)
        return nanoseconds < 0 ? nil : .nanoseconds(nanoseconds)
    }

    fileprivate var backendFD: Int32? {
        guard isOnLoop else { return nil }
        let descriptor = lc_loop_backend_fd(loop)
        return descriptor < 0 ? nil : descriptor
    }
}
