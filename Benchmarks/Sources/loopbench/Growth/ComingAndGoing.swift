// SPDX-License-Identifier: Apache-2.0

import LoadGenerator

/// Connections that are made, and connections that do not stay.
extension GrowthMeasures {
    func accept(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        let before = servers.cpuNanoseconds
        let took = try crowd.connect(connections)
        // What a server does with a connection it has taken belongs to its cost, even if it comes a little later.
        servers.waitUntilIdle()
        let used = servers.cpuNanoseconds - before
        return [
            .connectionsPerSecond: Double(connections) / (Double(took) / 1e9),
            .serverMicrosecondsPerConnection: Double(used) / 1e3 / Double(connections),
            .generatorProcesses: Double(crowd.processes),
        ]
    }

    /// Twice: the first time makes the server's tables as large as they get, the second is measured.
    func churn(_ servers: ServerGroup, _ clients: Int) throws -> (Figures, String?) {
        let sources = 16
        let crowd = try Crowd(connections: clients, to: servers, sources: sources, settings: settings)
        let descriptors = servers.descriptors
        var task = crowd_task()
        task.work = CROWD_CHURN
        task.count = UInt32(clients)
        task.message_bytes = UInt32(Self.messageBytes)
        window(&task, warmup: settings.warmup)
        try crowd.start(task)
        let early = try crowd.finish()
        servers.waitUntilIdle()
        let memory = servers.anonymousBytes

        window(&task, warmup: settings.warmup)
        try crowd.start(task)
        let nanoseconds = cpuTime(of: servers, during: task)
        let outcome = try crowd.finish()
        guard outcome.echoes > 0 else { throw BenchmarkFailure("no connection was served in the measured time") }
        servers.waitUntilIdle()
        let left = servers.descriptors - descriptors
        var result = figures(outcome)
        result[.mismatches] = Double(early.mismatches + outcome.mismatches)
        result[.connectionsPerSecond] = Double(outcome.echoes) / outcome.seconds
        result[.serverMicrosecondsPerConnection] = Double(nanoseconds) / 1e3 / Double(outcome.echoes)
        result[.serverDescriptorsLeft] = Double(left)
        result[.serverBytesLeft] = Double(servers.anonymousBytes - memory)
        result[.generatorProcesses] = Double(crowd.processes)
        return (result, left == 0 ? nil : "\(left) descriptors were still open when the clients had gone")
    }
}
