// SPDX-License-Identifier: Apache-2.0

import LoadGenerator

/// How each figure is taken: a fresh server, a crowd, and what is read from both.
///
/// Nothing here knows rounds or reports; a failure is thrown, or stands beside figures that are good by themselves.
struct GrowthMeasures {
    typealias Figures = [GrowthFigure: Double]
    let settings: GrowthSettings

    private static let messageBytes = 64

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
    private func timed(
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

    // MARK: Memory

    /// Some connections with large messages come first and stay: they make the server touch its buffers, which are
    /// there once and not per connection.
    func memory(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let early = try Crowd(connections: 64, to: servers, depth: 4, settings: settings)
        try early.connect(64)
        _ = try early.echo(20, messageBytes: 16 << 10)
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        servers.waitUntilIdle()
        let userBefore = servers.anonymousBytes
        let kernelBefore = KernelMemory.socketBytes()

        try crowd.connect(connections)
        servers.waitUntilIdle()
        let userConnected = servers.anonymousBytes
        let outcome = try crowd.echo(1, messageBytes: Self.messageBytes)
        servers.waitUntilIdle()
        var figures: Figures = [
            .userBytesPerConnectionBeforeEcho: Double(userConnected - userBefore) / Double(connections),
            .userBytesPerConnection: Double(servers.anonymousBytes - userBefore) / Double(connections),
            .mismatches: Double(outcome.mismatches),
            .generatorProcesses: Double(crowd.processes),
        ]
        if let before = kernelBefore, let after = KernelMemory.socketBytes() {
            figures[.kernelBytesPerConnection] = Double(after - before) / Double(connections) / 2
        }
        return figures
    }

    // MARK: Coming and going

    func accept(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        let before = servers.cpuNanoseconds
        let took = try crowd.connect(connections)
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

    // MARK: One that does not read

    /// Enough to fill the sockets' buffers several times; less than `loopbench serve` lets a peer owe.
    private static let slowBytesMax: UInt64 = 12 << 20

    func slowReader(_ servers: ServerGroup, _ connections: Int) throws -> (Figures, String?) {
        let crowd = try Crowd(connections: connections - 1, to: servers, settings: settings)
        try crowd.connect(connections - 1)
        let without = try timed(crowd, servers) { $0.message_bytes = UInt32(Self.messageBytes) }
        let memory = servers.anonymousBytes

        let slow = try Crowd(connections: 1, to: servers, settings: settings)
        var task = crowd_task()
        task.work = CROWD_SLOW
        task.count = 1
        task.bytes_max = Self.slowBytesMax
        // Longer than the others need, so that it reads nothing before they are done.
        window(&task, warmup: 2 * settings.warmup + 0.5)
        try slow.start(task)
        var figures: Figures
        var failure: String?
        do {
            figures = try timed(crowd, servers) { $0.message_bytes = UInt32(Self.messageBytes) }
        } catch {
            figures = [:]
            failure = "the fast ones, beside a slow reader: \(error)"
        }
        figures[.serverBytesGrown] = Double(servers.anonymousBytes - memory)
        figures[.requestsPerSecondWithoutSlowReader] = without[.requestsPerSecond]
        if let with = figures[.requestsPerSecond], let alone = without[.requestsPerSecond] {
            figures[.slowReaderRatio] = with / alone
        }
        do {
            let outcome = try slow.finish()
            figures[.slowReaderBytes] = Double(outcome.bytes)
            figures[.mismatches, default: 0] += Double(outcome.mismatches)
        } catch {
            failure = [failure, "\(error)"].compactMap { $0 }.joined(separator: "; ")
        }
        return (figures, failure)
    }

    // MARK: Helpers

    private func window(_ task: inout crowd_task, warmup: Double) {
        task.begin_ns = MonotonicClock.nanoseconds() + UInt64(warmup * 1e9)
        task.end_ns = task.begin_ns + UInt64(settings.measured * 1e9)
    }

    private func cpuTime(of servers: ServerGroup, during task: crowd_task) -> UInt64 {
        MonotonicClock.sleep(until: task.begin_ns)
        let before = servers.cpuNanoseconds
        MonotonicClock.sleep(until: task.end_ns)
        return servers.cpuNanoseconds - before
    }

    private func figures(_ outcome: Crowd.Outcome) -> Figures {
        let latencies = Latencies(outcome.latencies)
        var figures: Figures = [.mismatches: Double(outcome.mismatches)]
        if let p50 = latencies.p50 { figures[.p50Nanoseconds] = Double(p50) }
        if let p99 = latencies.p99 { figures[.p99Nanoseconds] = Double(p99) }
        return figures
    }
}
