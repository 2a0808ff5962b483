// SPDX-License-Identifier: Apache-2.0
//
// UnhandledError.swift: errors that no caller waits for, and the way they take.

import CLoopCore

/// An error that no caller waits for, and where it came from. It may gain properties.
public struct UnhandledError: Error, CustomStringConvertible {
    /// What was being done, as in `"callback"` or `"accept"`.
    public let message: String
    /// What was thrown.
    public let error: any Error
    /// The watched descriptor it is about.
    public internal(set) var descriptor: Int32?
    /// The connection it is about.
    public internal(set) var connection: Connection?
    /// The address it is about: where a listener listens.
    public internal(set) var address: SocketAddress?
    /// The signal whose callback threw it.
    public internal(set) var signal: Int32?

    public var description: String { "\(message): \(error)" }
}

extension Loop {
    /// Reports an error that no caller waits for: to ``onUnhandledError``, else to standard error. Any thread. Source:
    /// asyncio's `call_exception_handler`.
    /// - Parameter message: What was being done, as in `"callback"`.
    public func reportUnhandled(_ error: any Error, _ message: String) { core.report(error, message) }
}

/// The hook, and which thread is in it. A hook cannot throw, but what it calls may report in its turn.
struct ErrorHook {
    var body: (@Sendable (any Loop, UnhandledError) -> Void)?
    var thread: Int64?
}

extension LoopCore {
    var onUnhandledError: (@Sendable (any Loop, UnhandledError) -> Void)? {
        get { errorHook.withLock { $0.body } }
        set {
            let before = errorHook.withLock { hook in
                defer { hook.body = newValue }
                return hook.body
            }
            withExtendedLifetime(before) {}  // what it captured may ask for the hook
        }
    }

    /// Reports an error that no caller waits for.
    func report(
        _ error: any Error, _ message: String, descriptor: Int32? = nil, connection: Connection? = nil,
        address: SocketAddress? = nil, signal: Int32? = nil
    ) {
        let unhandled = UnhandledError(
            message: message, error: error, descriptor: descriptor, connection: connection, address: address,
            signal: signal)
        let thread = lc_thread_id()
        let (hook, isNested) = errorHook.withLock { hook in
            let isNested = hook.thread == thread
            if !isNested && hook.body != nil { hook.thread = thread }
            return (hook.body, isNested)
        }
        guard let hook, !isNested, let facadeLoop else {
            if hook != nil, !isNested { leaveHook(thread) }
            let place = isNested ? "the hook for unhandled errors, in " : ""
            return writeToStandardError("swift-event-loops: unhandled error in \(place)\(unhandled)")
        }
        hook(facadeLoop, unhandled)
        leaveHook(thread)
    }

    private func leaveHook(_ thread: Int64) {
        errorHook.withLock { if $0.thread == thread { $0.thread = nil } }
    }
}
