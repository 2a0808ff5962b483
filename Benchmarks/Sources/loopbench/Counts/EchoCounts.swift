// SPDX-License-Identifier: Apache-2.0

/// What one echo costs a server in steady state, or why that is not known.
struct EchoCounts {
    var mallocs: Double?
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

    /// io_uring does its I/O without system calls of its own, so all of them together are the kernel entries.
    var kernelEntries: Double? { syscalls.map { $0.values.reduce(0, +) } }
}
