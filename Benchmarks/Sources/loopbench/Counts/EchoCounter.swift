// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Counts per echo: a server's long life less a short one, over the echoes that makes.
///
/// Start, accepts, warm-up of caches and the end are in both lives and cancel; what is left is the steady state.
struct EchoCounter {
    /// Echoes on each connection of the life that is subtracted: everything a server does once.
    private static let warmUp = 20
    /// Otherwise Swift hashes with another seed in each life, and parsing the same arguments costs differently.
    private static let sameHashes = "SWIFT_DETERMINISTIC_HASHING=1"
    /// How long a server may take to end when its last connection has; under valgrind it writes its profile then.
    private static let endMillisecondsMax: Int32 = 20_000

    let scenario: Scenario
    let messages: Int
    let repetitions: Int
    let plan: CPUPlan
    let callgrind: Callgrind?
    /// Where profiles are kept.
    let profiles: String?

    private let generator = Generator()

    init(
        scenario: Scenario, messages: Int, repetitions: Int, plan: CPUPlan, callgrind: Callgrind?, profiles: String?
    ) {
        self.scenario = scenario
        self.messages = messages
        self.repetitions = repetitions
        self.plan = plan
        self.callgrind = callgrind
        self.profiles = profiles
    }

    func count(_ contender: Contender) -> EchoCounts {
        var counts = EchoCounts()
        do {
            let command = try command(contender)
            counts.mallocs = try mallocs(command)
            counts.syscalls = try syscalls(command)
            counts.profile = try profile(command, contender)
        } catch {
            counts.failure = "\(error)"
        }
        return counts
    }

    /// The loops' server is told to end by itself: under valgrind a thread that waits in io_uring keeps all others
    /// from running, and so the one that waits for our signal.
    private func command(_ contender: Contender) throws -> [String] {
        let command = try contender.command()
        return command.dropFirst().first == "serve"
            ? command + ["--until-closed", "\(scenario.connections)"] : command
    }

    // MARK: Mallocs

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

    // MARK: System calls

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

    // MARK: Instructions

    /// One pair of lives: the same instructions come out again, to a few in a thousand.
    private func profile(_ command: [String], _ contender: Contender) throws -> CallgrindProfile? {
        guard let callgrind else { return nil }
        let warmedUp = try profile(command, contender, Self.warmUp, callgrind)
        let whole = try profile(command, contender, Self.warmUp + messages, callgrind)
        return .perEcho(whole, less: warmedUp, echoes: echoes)
    }

    private func profile(
        _ command: [String], _ contender: Contender, _ messages: Int, _ callgrind: Callgrind
    ) throws -> CallgrindProfile {
        let life = try callgrind.life(of: command, keeping: profiles.map { "\($0)/\(fileName(contender, messages))" })
        defer { if profiles == nil { life.discard() } }
        try serve(life.command, messages, environment: [])
        return try life.read()
    }

    /// Tools for such files look for names that begin like this.
    private func fileName(_ contender: Contender, _ messages: Int) -> String {
        let name = contender.rawValue.replacing(" ", with: "-")
        return "callgrind.out.\(name).\(scenario.label.replacing("/", with: "-")).\(messages)"
    }

    // MARK: A life

    private func serve(_ command: [String], _ messages: Int, environment: [String]) throws {
        let server = try ServerProcess(
            command: command, cpu: plan.server, environment: environment + [Self.sameHashes])
        let outcome = try generator.run(scenario, for: .echoes(messages), against: server, cpu: plan.generator)
        if command.contains("--until-closed") { _ = server.awaitEnd(milliseconds: Self.endMillisecondsMax) }
        server.stop()
        guard outcome.mismatches == 0 else { throw BenchmarkFailure("echoed wrong bytes") }
    }

    private var echoes: Double { Double(scenario.connections * messages) }

    private func perEcho(_ difference: Double) -> Double { difference / echoes }
}
