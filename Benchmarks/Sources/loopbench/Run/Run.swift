// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Histogram

/// `loopbench run`: every contender in every scenario, round by round.
struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures all contenders in all scenarios and compares them with their floors.",
        discussion: "Takes about seven minutes; --quick takes a good minute and is noisier."
    )

    @Flag(help: "Three short rounds instead of five longer ones.")
    var quick = false

    @Option(help: ArgumentHelp("Write every measurement and the machine's facts there.", valueName: "file"))
    var json: String?

    @Option(help: ArgumentHelp("Make a page with plots and the JSON there.", valueName: "folder"))
    var report: String?

    @Flag(inversion: .prefixedNo, help: "With --report: count mallocs and system calls as well.")
    var counts = true

    @Flag(help: "Add the servers of other libraries that are here; see `loopbench peers`.")
    var peers = false

    @Option(
        help: ArgumentHelp(
            "Only these, with commas between, such as \"proactor async,nio handlers\".", valueName: "names"))
    var contenders: String?

    @Option(
        help: ArgumentHelp(
            "Connections/bytes/depth, with commas between, such as 50/64/1,1000/64/1.", valueName: "shapes"))
    var scenarios: String?

    @Option(help: "How often everything is measured. (default: 5, or 3 with --quick)")
    var rounds: Int?

    @Option(help: "Measured seconds each time. (default: 2, or 0.5 with --quick)")
    var seconds: Double?

    func validate() throws {
        guard rounds ?? 1 >= 1 else { throw ValidationError("--rounds must be at least 1.") }
        guard 0.05...600 ~= seconds ?? 1 else { throw ValidationError("--seconds must be between 0.05 and 600.") }
        guard try !Choices.scenarios(scenarios ?? "1/1/1").isEmpty, try !chosen().isEmpty else {
            throw ValidationError("There is nothing to measure.")
        }
    }

    func run() throws {
        let lineup = try Lineup(try chosen())
        for absent in lineup.absent {
            printToStandardError("not here: \(absent.contender.rawValue): \(absent.reason)")
        }
        let schedule = Schedule(
            contenders: lineup.present,
            scenarios: try scenarios.map(Choices.scenarios) ?? Scenario.all,
            rounds: rounds ?? (quick ? 3 : 5),
            warmup: .milliseconds(quick ? 150 : 500),
            measured: .seconds(seconds ?? (quick ? 0.5 : 2))
        )
        let folder = try report.map(ReportFolder.init)
        let plan = CPUPlan.available()
        var machine = Machine.present(plan)
        machine.versions?.merge(lineup.versions) { _, peer in peer }
        let results = schedule.run(plan)

        Report(
            machine: machine, schedule: schedule, results: results, absent: lineup.absent,
            versions: Set(lineup.versions.values).sorted()
        ).print()
        let raw = RawResults(
            machine: machine, command: ThisCommand.repeatable(), peerVersions: lineup.versions,
            absentPeers: lineup.absent, measurements: results.measurements)
        if let json { try raw.write(to: json) }
        if let folder {
            try folder.write([raw] + (counts ? [CountsJSON.counted(machine, plan, lineup.present)] : []))
        }
        if results.nothingMeasured || !results.mismatched.isEmpty { throw ExitCode.failure }
    }

    private func chosen() throws -> [Contender] {
        let chosen = try contenders.map(Choices.contenders) ?? Contender.ours
        return Contender.allCases.filter { chosen.contains($0) || peers && $0.peer != nil }
    }
}
