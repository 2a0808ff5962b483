// SPDX-License-Identifier: Apache-2.0
//
// LoopPolicies.swift: the process's policy, policies by name, and which of them has the say.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The process's policy, and policies by name.
///
/// `"selector"`, `"proactor"`, `"best"` and `"default"` are registered from the start. Every member may be called from
/// any thread.
public enum LoopPolicies {
    private typealias Factory = @Sendable () -> any LoopPolicy

    private struct State {
        var policy: (any LoopPolicy)?
        /// Whether `policy` came from `set(_:)`, rather than from nobody setting one.
        var isSet = false
        var factories: [String: Factory] = [
            "selector": { SelectorLoopPolicy() },
            "proactor": { ProactorLoopPolicy() },
            "best": { BestLoopPolicy() },
            "default": { DefaultLoopPolicy() },
        ]
    }

    /// Nothing of the user's runs under it: neither factories nor the deinitialisers of policies.
    private static let state = Lock(State())

    // MARK: The process's policy

    /// The policy of this process. The first use makes a ``DefaultLoopPolicy``; it stays until another is set. Costs a
    /// lock. Source: asyncio's `get_event_loop_policy`.
    public static var current: any LoopPolicy {
        state.withLock { state in
            if let policy = state.policy { return policy }
            let policy = DefaultLoopPolicy()
            state.policy = policy
            return policy
        }
    }

    /// Sets the policy of this process, at any time. Loops that run are not affected. Source: asyncio's
    /// `set_event_loop_policy`.
    /// - Parameter policy: `nil` forgets the policy: the next ``current`` makes a new ``DefaultLoopPolicy``, which knows
    ///   no loops, and makes one on the main thread again.
    public static func set(_ policy: (any LoopPolicy)?) {
        let old = state.withLock { state in
            let old = state.policy
            state.policy = policy
            state.isSet = policy != nil
            return old
        }
        withExtendedLifetime(old) {}
    }

    static func isSet(_ policy: any LoopPolicy) -> Bool { state.withLock { $0.isSet && $0.policy === policy } }

    // MARK: By name

    /// Makes a policy known by a name: to ``resolve(_:)``, to ``Loops/run(on:options:_:)`` and to the environment
    /// variable `LOOP_POLICY`. A name that is known already is taken over, those of this library included.
    public static func register(name: String, _ factory: @escaping @Sendable () -> any LoopPolicy) {
        let old = state.withLock { $0.factories.updateValue(factory, forKey: name) }
        withExtendedLifetime(old) {}
    }

    /// The names that are known, sorted.
    public static var registeredNames: [String] { state.withLock { $0.factories.keys.sorted() } }

    /// Finds the policy that has the say, and why: the one `name` names; else the process's policy, if one was set; else
    /// the one the environment variable `LOOP_POLICY` names; else a ``BestLoopPolicy``, which asks the kernel.
    ///
    /// The variable is read on each call, and an empty one counts as absent. As C requires, the environment must not
    /// be changed while other threads may read it. Policies found by name are made anew.
    /// - Throws: `.unknownPolicy`. Where the name came from the environment, it is given as `LOOP_POLICY=` and the name.
    public static func resolve(_ name: String? = nil) throws(LoopError) -> LoopPolicyResolution {
        if let name { return try resolve(name, .argument(name)) }
        if let policy = state.withLock({ $0.isSet ? $0.policy : nil }) {
            return LoopPolicyResolution(policy, .processDefault(policy))
        }
        if let name = nameInEnvironment { return try resolve(name, .environment(name)) }
        return LoopPolicyResolution(BestLoopPolicy(resolvedBy: .nobody), .nobody)
    }

    static func resolve(_ name: String, _ origin: LoopPolicyOrigin) throws(LoopError) -> LoopPolicyResolution {
        guard let factory = state.withLock({ $0.factories[name] }) else {
            let shown = origin.source == .environment ? "LOOP_POLICY=\(name)" : name
            throw .unknownPolicy(name: shown, known: registeredNames)
        }
        let policy = factory()
        (policy as? DefaultLoopPolicy)?.resolved(by: origin)
        return LoopPolicyResolution(policy, origin)
    }

    static var nameInEnvironment: String? {
        guard let value = getenv("LOOP_POLICY") else { return nil }
        let name = String(cString: value)
        return name.isEmpty ? nil : name
    }
}

/// The policy that has the say, who chose it, and why.
public struct LoopPolicyResolution: Sendable {
    public let policy: any LoopPolicy
    public let source: LoopSelection.Source
    /// Who chose it, in words.
    public let reason: String

    init(_ policy: any LoopPolicy, _ origin: LoopPolicyOrigin) {
        self.policy = policy
        source = origin.source
        reason = origin.reason
    }
}
