// SPDX-License-Identifier: Apache-2.0

import LoadGenerator

/// Which CPU serves and which generates load, so that neither takes time from the other.
struct CPUPlan: Codable {
    let server: Int32?
    let generator: Int32?

    /// The first two CPUs this process may use; no plan when there is only one.
    static func available() -> CPUPlan {
        var cpus: [Int32] = [0, 0]
        guard load_allowed_cpus(&cpus, 2) == 2 else { return CPUPlan(server: nil, generator: nil) }
        return CPUPlan(server: cpus[0], generator: cpus[1])
    }
}
