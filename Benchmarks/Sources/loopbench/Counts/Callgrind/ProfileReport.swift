// SPDX-License-Identifier: Apache-2.0

/// Where the instructions of an echo go: the dearest functions of a profile per echo.
struct ProfileReport {
    private static let rowsMax = 15
    private static let nameLengthMax = 100
    /// Fewer per echo were made at start or end.
    private static let retainsMin = 0.01

    let contender: Contender
    let profile: CallgrindProfile

    func lines() -> [String] {
        let total = profile.total
        let calls = profile.callsByCallee
        var table = Table(header: ["instructions", "share", "calls", "function"], leftAligned: [3])
        let dearest = profile.instructions.sorted {
            ($0.value, $1.key.name) > ($1.value, $0.key.name)
        }
        for (function, count) in dearest.prefix(Self.rowsMax) where count > 0 {
            table.add([
                Format.fixed(count, 1),
                Format.percent(count / total),
                Format.fixed(calls[function] ?? 0, 2),
                Self.title(function),
            ])
        }
        let heading = "\(contender.rawValue): \(Format.fixed(total, 1)) instructions per echo"
        return ["", heading] + table.lines().map { "  " + $0 } + retainers
    }

    private var retainers: [String] {
        let notable = ReferenceCounts(profile).retainers.filter { $0.value >= Self.retainsMin }
        return notable.sorted { ($0.value, $1.key.name) > ($1.value, $0.key.name) }.prefix(Self.rowsMax).map {
            "  retains \(Format.fixed($0.value, 3)): \(Self.title($0.key))"
        }
    }

    private static func title(_ function: CallgrindProfile.Function) -> String {
        let name = Demangle.swift(function.name)
        let short = name.count <= nameLengthMax ? name : String(name.prefix(nameLengthMax)) + "..."
        return "\(short) [\(function.object)]"
    }
}
