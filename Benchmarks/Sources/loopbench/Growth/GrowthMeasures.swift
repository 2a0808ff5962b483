// SPDX-License-Identifier: Apache-2.0

import LoadGenerator

/// How each figure is taken: a fresh server, a crowd, and what is read from both.
///
/// Nothing here knows rounds or reports; a failure is thrown, or stands beside figures that are good by themselves.
struct GrowthMeasures {
    typealias Figures = [GrowthFigure: Double]
    let settings: GrowthSettings

    static let messageBytes = 64

    func take(_ measure: GrowthMeasure, _ contender: Contender, connections: Int) throws -> (Figures, failure: String?)
    {
        let processes = try settings.serverProcesses(for: connections)
        let servers = try ServerGroup(contender, count: processes, cpu: settings.plan.server)
        let (figures, failure) =
            switch measure {
            case .echo: (try echo(servers, connections), nil as String?)
            case .memory: (try memory(servers, connections), nil)
            case .accept: (try accept(servers, connections), nil)
            case .churn: try churn(servers, connections)
            case .slow: try slowReader(servers, connections)
            case .mixed: (try mixed(servers, connections), nil)
            }
        if let failure { return (figures, failure) }
        if let wrong = figures[.mismatches], wrong > 0 { return (figures, "WRONG BYTES in \(Int(wrong)) receives") }
        try servers.stop()
        return (figures, nil)
    }

    // MARK: Echo

    func echo(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        try crowd.connect(connections)
        let first = try crowd.echo(1, messageBytes: Self.messageBytes)
        var figures = try timed(crowd, servers) { $0.message_bytes = UInt32(Self.messageBytes) }
        figures[.mismatches, default: 0] += Double(first.mismatches)
        return figures
    }

    func mixed(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        try crowd.connect(connections)
        return try timed(crowd, servers) {
            $0.message_bytes = 1
            $0.mixed_sizes = true
        }
    }

    /// Everyone echoes for a while, and the servers' CPU time is read at both ends of the measured part.
    func timed(
        _ crowd: Crowd, _ servers: ServerGroup, _ change: (inout crowd_task) -> Void
    ) throws -> Figures {
        var task = crowd_task()
        task.work = CROWD_ECHO
        change(&task)
        // The first round over all connections takes its time with many of them.
        window(&task, warmup: settings.warmup + Double(crowd.connected) * 40e-6)
        try crowd.start(task)
        let nanoseconds = cpuTime(of: servers, during: task)
        let outcome = try crowd.finish()
        guard outcome.echoes > 0 else { throw BenchmarkFailure("no echo came back in the measured time") }
        return figures(outcome).merging([
            .requestsPerSecond: Double(outcome.echoes) / outcome.seconds,
            .bytesPerSecond: Double(outcome.bytes) / outcome.seconds,
            .serverMicrosecondsPerRequest: Double(nanoseconds) / 1e3 / Double(outcome.echoes),
            .generatorProcesses: Double(crowd.processes),
        ]) { $1 }
    }

    // MARK: Helpers

    func window(_ task: inout crowd_task, warmup: Double) {
        task.begin_ns = MonotonicClock.nanoseconds() + UInt64(warmup * 1e9)
        task.end_ns = task.begin_ns + UInt64(settings.measured * 1e9)
    }

    func cpuTime(of servers: ServerGroup, during task: crowd_task) -> UInt64 {
        MonotonicClock.sleep(until: task.begin_ns)
        let before = servers.cpuNanoseconds
        MonotonicClock.sleep(until: task.end_ns)
        return servers.cpuNanoseconds - before
    }

    func figures(_ outcome: Crowd.Outcome) -> Figures {
        let latencies = Latencies(outcome.latencies)
        var figures: Figures = [.mismatches: Double(outcome.mismatches)]
        if let p50 = latencies.p50 { figures[.p50Nanoseconds] = Double(p50) }
        if let p99 = latencies.p99 { figures[.p99Nanoseconds] = Double(p99) }
        return figures
    }
}
