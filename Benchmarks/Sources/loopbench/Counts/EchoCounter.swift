// SPDX-License-Identifier: Apache-2.0

/// Counts per echo: a server's life with 2N echoes per connection less one with N, over the echoes that makes.
///
/// Start, accepts, warm-up of caches and the end are in both lives and cancel; what is left is the steady state.
struct EchoCounter {
    /// Echoes on each connection of the run that is subtracted: everything a server does once.
    private static let warmUp = 20

    let connections: Int
    let messages: Int
    let repetitions: Int
    let plan: CPUPlan

    private let generator = Generator()

    init(connections: Int, messages: Int, repetitions: Int, plan: CPUPlan) {
        self.connections = connections
        self.messages = messages
        self.repetitions = repetitions
        self.plan = plan
    }

    func count(_ contender: Contender) -> EchoCounts {
        var counts = EchoCounts()
        do {
            let command = try contender.command()
            counts.mallocs = try mallocs(command)
            counts.syscalls = try syscalls(command)
        } catch {
            counts.failure = "\(error)"
        }
        return counts
    }

    private func mallocs(_ command: [String]) throws -> Double? {
        let differences = try (0..<repetitions).map { _ in
            let warmedUp = try mallocs(command, Self.warmUp)
            return try perEcho(mallocs(command, Self.warmUp + messages) - warmedUp)
        }
        return Spread(differences)?.median
    }

    private func mallocs(_ command: [String], _ messages: Int) throws -> Double {
        let count = try AllocationCount()
        defer { count.discard() }
        try serve(command, messages, environment: count.environment)
        return try count.read()
    }

    /// nil where strace is not installed.
    private func syscalls(_ command: [String]) throws -> [String: Double]? {
        var differences: [[String: Double]] = []
        for _ in 0..<repetitions {
            guard let warmedUp = try syscalls(command, Self.warmUp),
                let whole = try syscalls(command, Self.warmUp + messages)
            else { return nil }
            differences.append(whole.merging(warmedUp.mapValues { -$0 }, uniquingKeysWith: +))
        }
        let names = Set(differences.flatMap(\.keys))
        return Dictionary(
            uniqueKeysWithValues: names.map { name in
                (name, Spread(differences.map { perEcho($0[name] ?? 0) })?.median ?? 0)
            })
    }

    private func syscalls(_ command: [String], _ messages: Int) throws -> [String: Double]? {
        guard let count = SyscallCount() else { return nil }
        defer { count.discard() }
        try serve(count.wrap(command), messages, environment: [])
        return try count.read()
    }

    private func serve(_ command: [String], _ messages: Int, environment: [String]) throws {
        let server = try ServerProcess(command: command, cpu: plan.server, environment: environment)
        let scenario = Scenario(connections: connections, messageBytes: 64, depth: 1)
        let outcome = try generator.run(scenario, for: .echoes(messages), against: server, cpu: plan.generator)
        server.stop()
        guard outcome.mismatches == 0 else { throw BenchmarkFailure("echoed wrong bytes") }
    }

    private func perEcho(_ difference: Double) -> Double {
        difference / Double(connections * messages)
    }
}
