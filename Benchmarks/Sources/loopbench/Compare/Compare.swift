// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `loopbench compare`: did a change make anything faster?
struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures the servers of this build and of another one in pairs.",
        discussion: """
            Each round measures both builds right after one another, the one that was second before now first. For \
            every pair this build's figure is divided by the other's; what is shown is the median with its range.
            """
    )

    @Argument(help: ArgumentHelp("The other build's loopbench.", valueName: "loopbench"))
    var other: String

    @Option(help: ArgumentHelp("Only these loops, with commas between. (default: all four)", valueName: "names"))
    var contenders: String?

    @Option(help: ArgumentHelp("Connections/bytes/depth, with commas between, such as 50/64/1.", valueName: "shapes"))
    var scenarios: String?

    @Option(help: "How often everything is measured.")
    var rounds = 9

    @Option(help: "Measured seconds each time.")
    var seconds = 0.5

    func validate() throws {
        guard Programs.isExecutable(other) else { throw ValidationError("There is no program \(other).") }
        guard rounds >= 1 else { throw ValidationError("--rounds must be at least 1.") }
        guard 0.05...600 ~= seconds else { throw ValidationError("--seconds must be between 0.05 and 600.") }
        guard try !Choices.scenarios(scenarios ?? "1/1/1").isEmpty, try !chosen().isEmpty else {
            throw ValidationError("There is nothing to compare: floors and peers are the same in both builds.")
        }
    }

    func run() throws {
        let schedule = Schedule(
            contenders: try chosen(),
            scenarios: try scenarios.map(Choices.scenarios) ?? Scenario.all,
            rounds: rounds, warmup: .milliseconds(150), measured: .seconds(seconds))
        let pairs = Pairs.measured(schedule, otherBuild: other, CPUPlan.available())
        PairsReport(schedule: schedule, pairs: pairs).lines().forEach { print($0) }
        if pairs.own.nothingMeasured || pairs.other.nothingMeasured || !pairs.mismatched.isEmpty {
            throw ExitCode.failure
        }
    }

    private func chosen() throws -> [Contender] {
        let chosen = try contenders.map(Choices.contenders) ?? Contender.ours
        return chosen.filter { $0.peer == nil && !$0.isFloor }
    }
}
