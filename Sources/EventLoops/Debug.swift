// SPDX-License-Identifier: Apache-2.0
//
// Debug.swift: the debug mode: callbacks that keep a loop for too long. And tasks whose errors nobody awaits.

import CLoopCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A callback, or a stretch of a task between two waits, that kept its loop from everything else; or a lookup of a name
/// that took as long. It may gain properties.
public struct SlowCallback: Sendable, CustomStringConvertible {
    /// What ran, as in `"callback or timer"` or `"task"`.
    public let kind: String
    /// How long it ran.
    public let duration: Duration
    /// Whether the loop could do nothing else. False for lookups, which keep only those who wait for them.
    public let keptLoop: Bool

    public var description: String {
        keptLoop
            ? "a \(kind) kept the loop for \(duration). Give long work to another thread, or split it."
            : "a \(kind) took \(duration). The loop went on meanwhile."
    }
}

extension Loop {
    /// Whether callbacks are timed, to report those that take ``slowCallbackThreshold`` or longer; and whether a call on
    /// the wrong thread traps, where the mistake is, rather than throw `.wrongThread`.
    ///
    /// To begin with, true if the environment has `LOOP_DEBUG`, with something other than an empty text or `0`, when the
    /// loop is made. A change holds from the next pass on. Costs two readings of the clock per callback; while it is
    /// off, nothing per callback. Any thread. Source: asyncio's `set_debug`.
    public var isDebug: Bool {
        get { core.debug.isOn }
        set { core.debug.isOn = newValue }
    }

    /// What counts as slow while ``isDebug``: 100 ms. Any thread. Source: asyncio's `slow_callback_duration`.
    public var slowCallbackThreshold: Duration {
        get { .nanoseconds(core.debug.threshold) }
        set { core.debug.threshold = LoopInstant(nanoseconds: 0).advanced(by: newValue).nanoseconds }
    }

    /// Told of slow callbacks while ``isDebug``, on the loop's thread. `nil`: they go to standard error. Any thread.
    public var onSlowCallback: (@Sendable (any Loop, SlowCallback) -> Void)? {
        get { core.debug.hook }
        set { core.debug.hook = newValue }
    }

    /// Starts a task as ``spawn(name:priority:_:)`` does, for which nobody waits: what `body` throws goes to
    /// ``onUnhandledError``, unless it is about the task's cancel or the loop's close.
    ///
    /// The result of ``spawn(name:priority:_:)`` tells who awaits it; if nobody does, its error is lost, and nobody can
    /// know. Any thread. Source: asyncio reports tasks that end with an error and are dropped unread.
    public func launch(
        name: String? = nil, priority: TaskPriority? = nil, _ body: sending @escaping () async throws -> Void
    ) {
        let core = core
        spawn(name: name, priority: priority) {
            do { try await body() } catch { core.reportLost(error, name) }
        }
    }
}

/// Any thread.
final class DebugSettings: Sendable {
    private let state: Atomic<Bool>
    private let nanoseconds = Atomic<UInt64>(100_000_000)
    private let onSlowCallback = Lock<(@Sendable (any Loop, SlowCallback) -> Void)?>(nil)

    init() {
        let value = getenv("LOOP_DEBUG").map { String(cString: $0) } ?? ""
        state = Atomic(value != "" && value != "0")
    }

    var isOn: Bool {
        @inline(__always) get { state.load(ordering: .relaxed) }
        set { state.store(newValue, ordering: .relaxed) }
    }

    var threshold: UInt64 {
        get { nanoseconds.load(ordering: .relaxed) }
        set { nanoseconds.store(newValue, ordering: .relaxed) }
    }

    var hook: (@Sendable (any Loop, SlowCallback) -> Void)? {
        get { onSlowCallback.withLock { $0 } }
        set {
            let before = onSlowCallback.withLock { hook in
                defer { hook = newValue }
                return hook
            }
            withExtendedLifetime(before) {}  // what it captured may ask for the hook
        }
    }
}

extension LoopCore {
    /// Phase 7 of the debug mode.
    func deliverTimed() {
        while let node = lc_loop_next(loop) {
            let kind = lc_kind(rawValue: UInt32(truncatingIfNeeded: node.pointee.kind))
            let began = lc_now_ns()
            deliver(node)
            reportIfSlow(name(of: kind), since: began, keptLoop: true)
        }
    }

    /// - Parameter began: Nanoseconds, as of `lc_now_ns`.
    func reportIfSlow(_ kind: @autoclosure () -> String, since began: UInt64, keptLoop: Bool) {
        let took = lc_now_ns() - began
        guard took >= debug.threshold else { return }
        let slow = SlowCallback(kind: kind(), duration: .nanoseconds(took), keptLoop: keptLoop)
        if let hook = debug.hook, let facadeLoop {
            hook(facadeLoop, slow)
        } else {
            writeToStandardError("swift-event-loops: \(slow)")
        }
    }

    private func name(of kind: lc_kind) -> String {
        switch kind {
        case LC_KIND_JOB_TASK, LC_KIND_JOB_SERIAL, LC_KIND_SLEEP: "task"
        case LC_KIND_CALL: "callback or timer"
        case LC_KIND_POST: "callback from another thread"
        case LC_KIND_OP: "task or callback at a descriptor"
        case LC_KIND_RECEIVE, LC_KIND_SEND, LC_KIND_CLOSED: "task or handler of a connection"
        case LC_KIND_ACCEPT: "task or handler of a listener"
        case LC_KIND_SIGNAL: "callback of a signal"
        default: "callback"
        }
    }

    fileprivate func reportLost(_ error: any Error, _ name: String?) {
        if error is CancellationError { return }
        switch error as? LoopError {
        case .cancelled: return
        case .closed, .connectionClosed: if lc_loop_is_closed(loop) { return }
        default: break
        }
        report(error, name.map { "task \"\($0)\"" } ?? "task")
    }
}

extension LoopCore {
    /// The error for a call on the wrong thread. In debug mode it traps.
    @inline(never)
    func wrongThread(_ operation: String) -> LoopError {
        let error = LoopError.wrongThread(operation: operation)
        if debug.isOn { fatalError("\(error)") }
        return error
    }

    /// Of a loop that runs, so its engine lives.
    static func wrongThread(_ loop: OpaquePointer, _ operation: String) -> LoopError {
        guard let owner = lc_loop_owner(loop) else { return .wrongThread(operation: operation) }
        return Unmanaged<LoopCore>.fromOpaque(owner).takeUnretainedValue().wrongThread(operation)
    }
}
