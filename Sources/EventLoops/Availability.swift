// SPDX-License-Identifier: Apache-2.0
//
// Availability.swift: whether a kind of loop can be had here, and in words why not.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Why a kind of loop cannot be had here.
public struct LoopUnavailability: Error, Sendable, Hashable, CustomStringConvertible {
    /// The `errno` value of the refusal, positive.
    public let errno: Int32
    /// The cause, in words.
    public let cause: String
    /// What to do about it.
    public let advice: String

    public var description: String { "io_uring is not available: \(cause). To use it, \(advice)." }

    /// Whether another kind of loop is a sensible answer: yes when this kernel or its policy refuses io_uring, no when
    /// descriptors or memory ran out, as that would befall the other kind too and must be seen.
    public var allowsFallback: Bool { errno == ENOSYS || errno == EPERM || errno == EINVAL }

    /// What an errno of ring set-up means. Asks nothing but the sysctl.
    public init(errno: Int32) {
        self.errno = Int32(clamping: errno.magnitude)  // `.min` has no positive twin
        var advice = ""
        cause = text(capacity: LC_PROBE_TEXT) { cause in
            advice = text(capacity: LC_PROBE_TEXT) { lc_probe_explain(errno, cause, $0) }
        }
        self.advice = advice
    }
}

/// Optional features of io_uring that a ``ProactorLoop`` uses where the kernel has them.
public struct ProactorFeatures: OptionSet, Sendable, Hashable, CustomStringConvertible {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Completions are worked off when the loop asks for them (Linux 6.1).
    public static let deferredTaskRun = ProactorFeatures(rawValue: UInt32(LC_FEATURE_DEFER_TASKRUN))
    /// One thread submits, which the kernel checks (Linux 6.0).
    public static let singleIssuer = ProactorFeatures(rawValue: UInt32(LC_FEATURE_SINGLE_ISSUER))
    /// No interrupts to run completions (Linux 5.19).
    public static let cooperativeTaskRun = ProactorFeatures(rawValue: UInt32(LC_FEATURE_COOP_TASKRUN))
    /// A bad entry does not stop the ones behind it (Linux 5.18).
    public static let submitAll = ProactorFeatures(rawValue: UInt32(LC_FEATURE_SUBMIT_ALL))
    /// One accept, many connections (Linux 5.19).
    public static let multishotAccept = ProactorFeatures(rawValue: UInt32(LC_FEATURE_MULTISHOT_ACCEPT))
    /// One receive, many answers, into buffers the kernel picks (Linux 6.0).
    public static let bufferRing = ProactorFeatures(rawValue: UInt32(LC_FEATURE_BUFFER_RING))
    /// The ring's descriptor is looked up once (Linux 5.18).
    public static let registeredRing = ProactorFeatures(rawValue: UInt32(LC_FEATURE_REGISTERED_RING))

    private static let names: [(ProactorFeatures, String)] = [
        (.deferredTaskRun, "deferred task run"), (.singleIssuer, "single issuer"),
        (.cooperativeTaskRun, "cooperative task run"), (.submitAll, "submit all"),
        (.multishotAccept, "multishot accept"), (.bufferRing, "buffer ring with multishot receive"),
        (.registeredRing, "registered ring"),
    ]

    public var description: String {
        Self.names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

/// What ``ProactorLoop/probe()`` found.
public enum ProactorAvailability: Sendable, Hashable {
    /// A ring could be made.
    case ok(ProactorFeatures)
    /// The kernel refused one.
    case denied(LoopUnavailability)
}
