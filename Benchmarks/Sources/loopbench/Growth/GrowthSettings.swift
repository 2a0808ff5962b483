// SPDX-License-Identifier: Apache-2.0

import Glibc

/// What all measures of one invocation share: where things run, how long, and how many processes it takes.
struct GrowthSettings {
    let plan: CPUPlan
    let descriptorLimit: Int
    /// nil: as many as the limit demands.
    var forcedServers: Int?
    var forcedGenerators: Int?
    var warmup = 0.3
    var measured = 1.5
    var memoryConnections = 10_000
    var acceptConnections = 10_000

    /// What a process has open besides connections: standard streams, rings, signal and timer descriptors.
    private static let othersMax = 64

    func generatorProcesses(for connections: Int) throws -> Int {
        let room = descriptorLimit - Self.othersMax
        guard room > 0 else {
            throw BenchmarkFailure("the descriptor limit is only \(descriptorLimit): raise ulimit -n")
        }
        return min(connections, forcedGenerators ?? (connections + room - 1) / room)
    }

    /// The kernel spreads connections over processes by a hash, so their shares differ a little.
    func serverProcesses(for connections: Int) throws -> Int {
        let room = descriptorLimit - Self.othersMax
        if let forced = forcedServers {
            let most = forced == 1 ? connections : connections / forced * 21 / 20
            guard most <= room else {
                let needed = most + Self.othersMax
                throw BenchmarkFailure(
                    "\(connections) connections need \(needed) descriptors in each of \(forced) server processes, and "
                        + "the limit is \(descriptorLimit): raise it (ulimit -n \(needed)) or allow more processes "
                        + "(--server-processes)")
            }
            return forced
        }
        guard connections > room else { return 1 }
        let share = room * 19 / 20
        return (connections + share - 1) / share
    }
}

/// RLIMIT_NOFILE of this process, which servers and generators inherit.
enum DescriptorLimit {
    /// Raises the limit as far as it may be raised, for `wish` descriptors also beyond the hard limit.
    /// - Returns: What it is now.
    static func raise(wish: Int) -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return 1024 }
        if limit.rlim_max < rlim_t(wish) {
            var higher = rlimit(rlim_cur: rlim_t(wish), rlim_max: rlim_t(wish))
            if setrlimit(resource, &higher) == 0 { return wish }
        }
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
        getrlimit(resource, &limit)
        return Int(clamping: limit.rlim_cur)
    }
}
