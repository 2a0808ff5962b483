// SPDX-License-Identifier: Apache-2.0

/// What is counted, under the names that thresholds and JSON use.
enum CountKind: String, CaseIterable, Codable, CodingKey, CodingKeyRepresentable {
    case mallocs, kernelEntries, instructions, retains, releases, contextSwitches, entriesPerTick, completionsPerEntry

    /// In a sentence, after the figure.
    var title: String {
        switch self {
        case .mallocs: "mallocs per echo"
        case .kernelEntries: "kernel entries per echo"
        case .instructions: "instructions per echo"
        case .retains: "retains per echo"
        case .releases: "releases per echo"
        case .contextSwitches: "context switches per echo"
        case .entriesPerTick: "entries per tick"
        case .completionsPerEntry: "completions per entry"
        }
    }

    /// Whether it is a sum over a life, in which start and end may differ by a few from life to life.
    var isPerEcho: Bool { self != .entriesPerTick && self != .completionsPerEntry }

    func format(_ value: Double) -> String {
        switch self {
        case .instructions: Format.fixed(value, 0)
        case .entriesPerTick, .completionsPerEntry: Format.fixed(value, 2)
        default: Format.fixed(value, 3)
        }
    }
}
