// SPDX-License-Identifier: Apache-2.0

/// What one echo costs a server in steady state, or why that is not known.
struct EchoCounts {
    /// What the server counted itself, by name; see ``OwnStatistics``.
    var own: [String: Double]?
    var syscalls: [String: Double]?
    var instructions: Double?
    var retains: Double?
    var releases: Double?
    /// Kept for those who want to see where the instructions go.
    var profile: CallgrindProfile? {
        didSet {
            instructions = profile?.total
            let references = profile.map(ReferenceCounts.init)
            retains = references?.retains
            releases = references?.releases
        }
    }
    var failure: String?

    /// Without what rounds to nothing: calls of start and end, which cancelled.
    var notableSyscalls: [String: Double]? { syscalls?.filter { $0.value.magnitude >= 0.0005 } }
    var mallocs: Double? { own?["mallocs"] }
    /// Times a thread slept. That others took its CPU is the machine's doing and no count of the server.
    var contextSwitches: Double? { own?["voluntary-switches"] }
    /// io_uring does its I/O without system calls of its own, so all of them together are the kernel entries.
    var kernelEntries: Double? { syscalls.map { $0.values.reduce(0, +) } }
    /// Completions, or readiness events, taken per system call that submits or waits.
    var completionsPerEntry: Double? { ratio("completions", "entries") }
    var entriesPerTick: Double? { ratio("entries", "ticks") }

    subscript(kind: CountKind) -> Double? {
        switch kind {
        case .mallocs: mallocs
        case .kernelEntries: kernelEntries
        case .instructions: instructions
        case .retains: retains
        case .releases: releases
        case .contextSwitches: contextSwitches
        case .entriesPerTick: entriesPerTick
        case .completionsPerEntry: completionsPerEntry
        }
    }

    private func ratio(_ count: String, _ base: String) -> Double? {
        guard let count = own?[count], let base = own?[base], base > 0 else { return nil }
        return count / base
    }
}
