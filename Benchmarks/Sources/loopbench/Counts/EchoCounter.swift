// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Counts per echo: a server's long life less a short one, over the echoes that makes.
///
/// Start, accepts, warm-up of caches and the end are in both lives and cancel; what is left is the steady state.
/// The load comes in waves that find the server asleep, so that batches are the same in every life.
struct EchoCounter {
    /// Waves of the life that is subtracted: everything a server does once.
    private static let warmUp = 20
    /// How often an undisturbed life is tried for where real-time priority is refused, see lockstep.c.
    private static let attemptsPerLife = 3
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
            counts.own = try steadyState { try own(command, $0) }
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

    // MARK: Counts by name

    /// The counts of one life, and whether every wave of it was whole.
    private struct Life {
        let counts: [String: Double]
        let isUndisturbed: Bool
    }

    /// Several lives are lived and the least of each count taken: a thread of the runtime that came up in one of them
    /// only adds, and so does a wave that met the server half.
    private func steadyState(_ life: (_ waves: Int) throws -> Life) throws -> [String: Double] {
        func least(_ waves: Int) throws -> [String: Double] {
            var lives: [Life] = []
            while lives.count < repetitions * Self.attemptsPerLife,
                lives.count(where: \.isUndisturbed) < repetitions
            {
                lives.append(try life(waves))
            }
            let undisturbed = lives.filter(\.isUndisturbed)
            return Self.least((undisturbed.isEmpty ? lives : undisturbed).map(\.counts))
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
    private func own(_ command: [String], _ waves: Int) throws -> Life {
        let count = try AllocationCount()
        defer { count.discard() }
        let (lines, disturbed) = try serve(command, waves, environment: count.environment)
        let counts = OwnStatistics.parse(lines).merging(["mallocs": try count.read()]) { $1 }
        return Life(counts: counts, isUndisturbed: disturbed == 0)
    }

    /// nil where strace is not installed.
    private func syscalls(_ command: [String]) throws -> [String: Double]? {
        guard SyscallCount() != nil else { return nil }
        return try steadyState { waves in
            guard let count = SyscallCount() else { throw BenchmarkFailure("strace has gone") }
            defer { count.discard() }
            let (_, disturbed) = try serve(count.wrap(command), waves, environment: [])
            return Life(counts: try count.read(), isUndisturbed: disturbed == 0)
        }
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

    /// - Returns: What the server said at its end, and how many waves met it half.
    @discardableResult
    private func serve(
        _ command: [String], _ waves: Int, environment: [String]
    ) throws -> (lines: [String], disturbed: UInt64) {
        let server = try ServerProcess(
            command: command, cpu: plan.server, environment: environment + [Self.sameHashes])
        // On the server's CPU, which then does not serve while a wave is sent.
        let outcome = try generator.run(scenario, for: .waves(waves), against: server, cpu: plan.server)
        if command.contains("--until-closed") { _ = server.awaitEnd(milliseconds: Self.endMillisecondsMax) }
        server.stop()
        guard outcome.mismatches == 0 else { throw BenchmarkFailure("echoed wrong bytes") }
        return (server.remainingLines(), outcome.disturbedWaves)
    }

    var echoes: Int { scenario.connections * scenario.depth * waves }
}
