// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import LoadGenerator

/// `loopbench grow`: what becomes of the loops when connections become many, idle, short-lived or slow.
struct Grow: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures growth: up to 50000 connections, idle memory, accepts, churn, a slow reader, mixed sizes.",
        discussion: """
            Where the descriptor limit is too low, connections are spread over several generator processes, and over \
            several server processes that share the port; the report says so.
            """
    )

    @Flag(help: "One short round, up to 10000 connections.")
    var quick = false

    @Option(help: "Some of echo,memory,accept,churn,slow,mixed.")
    var only: String?

    @Option(help: "Connections for echo. (default: 1,50,1000,10000,50000; with --quick up to 10000)")
    var connections: String?

    @Option(help: "Contenders, separated by commas, by name or a part of it such as `selector`. (default: all)")
    var contenders: String?

    @Option(help: "How often everything is measured. (default: 5, or 1 with --quick)")
    var rounds: Int?

    @Option(help: "Measured seconds each time. (default: 1.5, or 0.4 with --quick)")
    var seconds: Double?

    @Option(help: "Server processes that share the port. (default: as many as the descriptor limit demands)")
    var serverProcesses: Int?

    @Option(help: "Generator processes. (default: as many as the descriptor limit demands)")
    var generatorProcesses: Int?

    @Option(help: ArgumentHelp("Write every measurement and the machine's facts there.", valueName: "file"))
    var json: String?

    func validate() throws {
        _ = try (measures(), counts(), participants())
        guard rounds ?? 1 >= 1 else { throw ValidationError("--rounds must be at least 1.") }
        guard 0.05...600 ~= seconds ?? 1 else { throw ValidationError("--seconds must be between 0.05 and 600.") }
        guard 1...256 ~= serverProcesses ?? 1, 1...256 ~= generatorProcesses ?? 1 else {
            throw ValidationError("--server-processes and --generator-processes take 1 to 256.")
        }
    }

    func run() throws {
        let plan = CPUPlan.available()
        // Between tasks this process only waits and looks, and should do that where it disturbs no server.
        if let cpu = plan.generator { load_stay_on(cpu) }
        let wish = (try counts().max() ?? 0) + 1024
        let limit = DescriptorLimit.raise(wish: wish)
        if limit < wish {
            printToStandardError(
                "the descriptor limit is \(limit) and may not be raised to \(wish): connections are spread over "
                    + "several processes where they do not fit into one (ulimit -Hn)")
        }
        var settings = GrowthSettings(
            plan: plan, descriptorLimit: limit, forcedServers: serverProcesses, forcedGenerators: generatorProcesses)
        settings.measured = seconds ?? (quick ? 0.4 : 1.5)
        if quick {
            settings.warmup = 0.1
            settings.acceptConnections = 3000
        }
        let schedule = GrowthSchedule(
            measures: try measures(), connections: try counts(), contenders: try participants(),
            rounds: rounds ?? (quick ? 1 : 5), settings: settings)
        let results = GrowthResults(machine: .present(plan), growth: schedule.run())
        GrowthReport(schedule: schedule, results: results).lines().forEach { print($0) }
        if let json { try results.write(to: json) }
        let wrong = results.growth.contains { $0.figures[.mismatches] ?? 0 > 0 }
        if wrong || results.growth.allSatisfy({ $0.figures.isEmpty }) { throw ExitCode.failure }
    }

    // MARK: Lists

    private func measures() throws -> [GrowthMeasure] {
        guard let only else { return GrowthMeasure.allCases }
        return try only.split(separator: ",").map { word in
            guard let measure = GrowthMeasure.allCases.first(where: { $0.word == word || $0.rawValue == word }) else {
                throw ValidationError("--only takes some of echo,memory,accept,churn,slow,mixed.")
            }
            return measure
        }
    }

    private func counts() throws -> [Int] {
        guard let connections else { return [1, 50, 1000, 10_000] + (quick ? [] : [50_000]) }
        return try connections.split(separator: ",").map { word in
            guard let count = Int(word), 1...1_000_000 ~= count else {
                throw ValidationError("--connections takes numbers from 1 to 1000000, separated by commas.")
            }
            return count
        }
    }

    private func participants() throws -> [Contender] {
        guard let contenders else { return Contender.ours }
        let words = contenders.split(separator: ",")
        let chosen = Contender.ours.filter { one in words.contains { one.rawValue.contains($0) } }
        guard !chosen.isEmpty else {
            throw ValidationError("--contenders names none of \(Contender.ours.map(\.rawValue)).")
        }
        return chosen
    }
}
