// SPDX-License-Identifier: Apache-2.0

/// Retains and releases, counted from the calls of a profile.
///
/// All the runtime's variants count: of Swift objects, bridged and unknown ones, several at once, unowned and weak.
/// One that calls another of its kind is one retain, not two.
struct ReferenceCounts {
    var retains = 0.0
    var releases = 0.0
    /// Who retains.
    var retainers: [CallgrindProfile.Function: Double] = [:]

    init(_ profile: CallgrindProfile) {
        for (call, count) in profile.calls {
            if Self.isRetain(call.callee.name), !Self.isRetain(call.caller.name) {
                retains += count
                retainers[call.caller, default: 0] += count
            }
            if Self.isRelease(call.callee.name), !Self.isRelease(call.caller.name) { releases += count }
        }
    }

    static func isRetain(_ name: String) -> Bool {
        isOfRuntime(name) && name.contains("etain") && !name.hasSuffix("Count")
    }

    /// Freeing the object that was released last is not another release.
    static func isRelease(_ name: String) -> Bool {
        isOfRuntime(name) && name.contains("elease") && !name.contains("dealloc")
    }

    /// `swift_retain`, `swift_bridgeObjectRelease_n`, and where a runtime has them `_swift_release_` behind them.
    private static func isOfRuntime(_ name: String) -> Bool {
        name.hasPrefix("swift_") || name.hasPrefix("_swift_")
    }
}
