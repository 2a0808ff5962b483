// SPDX-License-Identifier: Apache-2.0
//
// DefaultLoopPolicy.swift: the policy of a process that sets none: a loop per thread, made by itself on the main one.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The policy of a process that sets none. A context is a thread; on the main thread the loop is made when first asked
/// for.
///
/// Subclass it to change a behaviour, and call `super` for the rest. Each policy object has slots of its own: two of
/// them never hand out each other's loops. A slot keeps its loop alive until another is set, the thread ends, or the
/// policy is gone; it does not close it, and keeps it when it is closed. Source: asyncio's `DefaultEventLoopPolicy`.
open class DefaultLoopPolicy: LoopPolicy, @unchecked Sendable {
    /// Whether ``currentLoop()`` makes a loop on the main thread.
    public let autoCreate: Bool

    private let owner = SlotOwner()
    /// How ``LoopPolicies/resolve(_:)`` came to this policy.
    private let resolvedBy = Lock<LoopPolicyOrigin?>(nil)

    /// - Parameter autoCreate: `false`: a loop must be set on the main thread as on any other, as in Python 3.14.
    public init(autoCreate: Bool = true) { self.autoCreate = autoCreate }

    deinit { ThreadSlots.forget(owner) }

    /// The loop of the calling thread.
    ///
    /// On the main thread, and if ``setCurrentLoop(_:)`` was never called there, a loop is made with ``makeLoop()`` and
    /// set with ``setCurrentLoop(_:)``. Setting `nil` counts as a call: after that, none is made. A fork makes the
    /// thread of the child its main thread, and the loops of the parent count as never set. Any thread.
    /// - Returns: The loop that runs on this thread, else the one that was set, even if closed, else the one just made.
    /// - Throws: `.noCurrentLoop` naming the thread; what ``makeLoop()`` throws.
    open func currentLoop() throws(LoopError) -> any Loop {
        if let running = Loops.running { return running }
        if case .neverSet = ThreadSlots.current.slot(of: owner), autoCreate, lc_is_main_thread() {
            setCurrentLoop(try makeLoop())
        }
        // Asked again, as whoever overrides `setCurrentLoop` may have set something else.
        guard case .set(let loop?) = ThreadSlots.current.slot(of: owner) else {
            throw .noCurrentLoop(thread: nameOfThread())
        }
        return loop
    }

    /// Sets the loop of the calling thread; `nil`: it has none, and none is made for it. Any thread.
    open func setCurrentLoop(_ loop: (any Loop)?) { ThreadSlots.current.set(loop, of: owner) }

    /// Makes a loop: by the policy that the environment variable `LOOP_POLICY` names, else the best that can be had
    /// here, as ``BestLoopPolicy``. The variable is read on each call. Any thread.
    /// - Throws: `.unknownPolicy` when the variable names none; what the policy it names throws.
    open func makeLoop() throws(LoopError) -> any Loop {
        let slots = ThreadSlots.current
        // Whom the variable named does not ask it again: it may be a subclass that calls `super`.
        var origin = resolvedBy.withLock { $0 }
        if let name = slots.environmentName { origin = .environment(name) }
        if origin?.source == .environment, let origin {
            return try BestLoopPolicy(resolvedBy: origin).makeLoop()
        }
        guard let name = LoopPolicies.nameInEnvironment else {
            return try BestLoopPolicy(resolvedBy: .nobody).makeLoop()
        }
        slots.environmentName = name
        defer { slots.environmentName = nil }
        return try LoopPolicies.resolve(name, .environment(name)).policy.makeLoop()
    }

    func resolved(by origin: LoopPolicyOrigin) { resolvedBy.withLock { $0 = origin } }

    /// What to say of a loop that this policy makes.
    func selection(_ kind: LoopKind, because detail: String? = nil) -> LoopSelection {
        let origin =
            LoopPolicies.isSet(self)
            ? .processDefault(self)
            : resolvedBy.withLock { $0 } ?? LoopPolicyOrigin(source: .argument, reason: "\(type(of: self)) was asked")
        return LoopSelection(
            kind: kind, source: origin.source, reason: detail.map { "\(origin.reason); \($0)" } ?? origin.reason)
    }
}

/// Who chose a policy, and in which words.
struct LoopPolicyOrigin: Sendable {
    let source: LoopSelection.Source
    let reason: String

    static func argument(_ name: String) -> Self {
        Self(source: .argument, reason: "\"\(name)\" was asked for by name")
    }
    static func processDefault(_ policy: any LoopPolicy) -> Self {
        Self(source: .processDefault, reason: "the process's policy is \(type(of: policy))")
    }
    static func environment(_ name: String) -> Self { Self(source: .environment, reason: "LOOP_POLICY is \"\(name)\"") }
    static var nobody: Self { Self(source: .probe, reason: "nobody asked for a kind of loop") }
}

/// The calling thread's name and number. From procfs, as pthread_getname_np(3) is not visible from Swift.
private func nameOfThread() -> String {
    let number = lc_thread_id()
    guard let file = fopen("/proc/self/task/\(number)/comm", "re") else { return "\(number)" }
    defer { fclose(file) }
    let name = text(capacity: 64) { _ = fgets($0, 64, file) }.prefix { $0 != "\n" }
    return "\"\(name)\" (\(number))"
}
