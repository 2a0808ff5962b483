// SPDX-License-Identifier: Apache-2.0
//
// LoopSelection.swift: which loop was chosen, by whom, and why.

/// The two kinds of loop.
public enum LoopKind: String, Sendable, Hashable, CaseIterable {
    /// Readiness, on libev: ``SelectorLoop``.
    case selector
    /// Completion, on io_uring: ``ProactorLoop``.
    case proactor
}

/// Which kind of loop was chosen, by whom, and why.
public struct LoopSelection: Sendable, Hashable, CustomStringConvertible {
    /// Who had the last word, in the order in which they are asked.
    public enum Source: String, Sendable, Hashable {
        /// The loop was made by name or by its initialiser.
        case argument
        /// `LoopPolicies.set(_:)`.
        case processDefault = "process default"
        /// The environment variable `LOOP_POLICY`.
        case environment
        /// What the kernel offers.
        case probe
    }

    public let kind: LoopKind
    public let source: Source
    /// Why this kind, in words; where another was wanted first, why that could not be had.
    public let reason: String

    public init(kind: LoopKind, source: Source, reason: String) {
        self.kind = kind
        self.source = source
        self.reason = reason
    }

    public var description: String { "\(kind.rawValue) (\(source.rawValue)): \(reason)" }
}
