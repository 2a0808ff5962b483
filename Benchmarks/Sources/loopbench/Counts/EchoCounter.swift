// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Glibc

/// Counts per echo: a server's long life less a short one, over the echoes that makes.
///
/// Start, accepts, warm-up of caches and the end are in both lives and cancel; what is left is the steady state.
/// The load comes in waves that find the server asleep, so that batches are the same in every life.
struct EchoCounter {
    /// Waves of the life that is subtracted: everything a server does once.
    private static let warmUp = 20
    /// Lives without a tracer are short, so there may be more of them.
    private static let livesUntraced = 3
    /// Otherwise Swift hashes with another seed in each life, and parsing the same arguments costs differently.
    private static let sameHashes = "SWIFT_DETERMINISTIC_HASHING=1"
    /// How long a server may take to end when its last connection has; under valgrind it writes its profile then.
    private static let endMillisecondsMax: Int32 = 20_000

    let scenario: Scenario
    let waves: Int
    let repetitions: Int
    let plan: CPUPlan
    let callgrind: Callgrind?
    /// Where profiles are kept.
    let profiles: String?

    private let generator = Generator()

    init(
        scenario: Scenario, waves: Int, repetitions: Int, plan: CPUPlan, callgrind: Callgrind?, profiles: String?
    ) {
        self.scenario = scenario
        self.waves = waves
        self.repetitions = repetitions
        self.plan = plan
        self.callgrind = callgrind
        self.profiles = profiles
    }

    func count(_ contender: Contender) -> EchoCounts {
        var counts = EchoCounts()
        do {
            let command = try command(contender)
            counts.own = try steadyState(lives: repetitions * Self.livesUntraced) { try own(command, $0) }
            counts.syscalls =
                try SyscallCount() == nil ? nil : steadyState(lives: repetitions) { try syscalls(command, $0) }
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

    // MARK: Counts by name

    /// Each life is lived several times and the least of each count taken: what disturbs a server from outside, such as
    /// a busy machine, only ever adds to what it must do.
    private func steadyState(
        lives: Int, _ life: (_ waves: Int) throws -> [String: Double]
    ) throws -> [String: Double] {
        func least(_ waves: Int) throws -> [String: Double] {
            Self.least(try (0..<lives).map { _ in try life(waves) })
        }
        let warmedUp = try least(Self.warmUp)
        return try least(Self.warmUp + waves).merging(warmedUp.mapValues { -$0 }, uniquingKeysWith: +)
            .mapValues { $0 / Double(echoes) }
    }

    /// A name that a life does not mention was counted 0 times in it.
    static func least(_ lives: [[String: Double]]) -> [String: Double] {
        let names = Set(lives.flatMap(\.keys))
        let pairs = names.map { name in (name, lives.map { $0[name] ?? 0 }.min() ?? 0) }
        return Dictionary(uniqueKeysWithValues: pairs)
    }

    /// What the server says of itself, and its mallocs.
    private func own(_ command: [String], _ waves: Int) throws -> [String: Double] {
        let count = try AllocationCount()
        defer { count.discard() }
        let lines = try serve(command, waves, environment: count.environment)
        return OwnStatistics.parse(lines).merging(["mallocs": try count.read()]) { $1 }
    }

    private func syscalls(_ command: [String], _ waves: Int) throws -> [String: Double] {
        guard let count = SyscallCount() else { return [:] }
        defer { count.discard() }
        try serve(count.wrap(command), waves, environment: [])
        return try count.read()
    }

    // MARK: Instructions

    /// One pair of lives: the same instructions come out again, to a few in a thousand.
    private func profile(_ command: [String], _ contender: Contender) throws -> CallgrindProfile? {
        guard let callgrind else { return nil }
        let warmedUp = try profile(command, contender, Self.warmUp, callgrind)
        let whole = try profile(command, contender, Self.warmUp + waves, callgrind)
        return .perEcho(whole, less: warmedUp, echoes: Double(echoes))
    }

    private func profile(
        _ command: [String], _ contender: Contender, _ waves: Int, _ callgrind: Callgrind
    ) throws -> CallgrindProfile {
        let life = try callgrind.life(of: command, keeping: profiles.map { "\($0)/\(fileName(contender, waves))" })
        defer { if profiles == nil { life.discard() } }
        try serve(life.command, waves, environment: [])
        return try life.read()
    }

    /// Tools for such files look for names that begin like this.
    private func fileName(_ contender: Contender, _ waves: Int) -> String {
        let name = contender.rawValue.replacing(" ", with: "-")
        return "callgrind.out.\(name).\(scenario.label.replacing("/", with: "-")).\(waves)"
    }

    // MARK: A life

    /// - Returns: What the server said at its end.
    @discardableResult
    private func serve(_ command: [String], _ waves: Int, environment: [String]) throws -> [String] {
        let server = try ServerProcess(
            command: command, cpu: plan.server, environment: environment + [Self.sameHashes])
        // The server's CPU: waves need it to be theirs alone while they are sent.
        let outcome = try generator.run(scenario, for: .waves(waves), against: server, cpu: plan.server)
        if command.contains("--until-closed") { _ = server.awaitEnd(milliseconds: Self.endMillisecondsMax) }
        server.stop()
        if getenv("DBG") != nil {
            printToStandardError(
                "\(command[0].split(separator: "/").last!) disturbed \(outcome.disturbedWaves) of \(waves)")
        }
        guard outcome.mismatches == 0 else { throw BenchmarkFailure("echoed wrong bytes") }
        return server.remainingLines()
    }

    var echoes: Int { scenario.connections * scenario.depth * waves }
}
