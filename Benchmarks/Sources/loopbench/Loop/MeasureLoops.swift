// SPDX-License-Identifier: Apache-2.0
//
// MeasureLoops.swift: the command `loopbench loop`: timers, callbacks, tasks and waiting.

import ArgumentParser
import LoopMeasuring

/// `loopbench loop`: the parts of a loop that no socket is needed for, beside SwiftNIO and Swift's global executor.
struct MeasureLoops: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loop",
        abstract: "Measures timers, callbacks, tasks and waiting, beside SwiftNIO and the global executor.",
        discussion: """
            Each figure is the median over the rounds; each measurement has a process of its own. SwiftNIO takes part \
            once its package is built: swift build -c release --package-path Peers/NIO
            """
    )

    @Flag(help: "Three short rounds, and fewer numbers of pending timers.")
    var quick = false

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Only what these words occur in, such as timer, spawn or 100,000.", valueName: "word"))
    var only: [String] = []

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Only these, such as selector, proactor, nio.", valueName: "contender"))
    var contender: [String] = []

    @Option(help: "How often everything is measured. (default: 5, or 3 with --quick)")
    var rounds: Int?

    @Option(help: "Seconds each time, about. (default: 0.3, or 0.05 with --quick)")
    var seconds: Double?

    @Option(help: ArgumentHelp("Write every measurement and the machine's facts there.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard rounds ?? 1 >= 1 else { throw ValidationError("--rounds must be at least 1.") }
        guard 0.001...60 ~= seconds ?? 1 else { throw ValidationError("--seconds must be between 0.001 and 60.") }
        guard !configurations.isEmpty else { throw ValidationError("--only leaves nothing to measure.") }
        for name in contender where LoopContender(rawValue: name) == nil {
            let names = LoopContender.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("There is no contender \(name); there are \(names).")
        }
    }

    private var configurations: [LoopConfiguration] {
        LoopConfiguration.all(quick: quick).filter { configuration in
            only.isEmpty || only.contains { configuration.label.contains($0) }
        }
    }

    func run() throws {
        let plan = CPUPlan.available()
        let machine = Machine.present(plan)
        let contenders = contender.isEmpty ? LoopContender.allCases : contender.compactMap(LoopContender.init)
        let schedule = LoopSchedule(
            configurations: configurations, contenders: contenders, rounds: rounds ?? (quick ? 3 : 5),
            seconds: seconds ?? (quick ? 0.05 : 0.3), plan: plan)
        let samples = schedule.run()
        print("Linux \(machine.kernel), \(machine.cpu), \(machine.cores) CPUs, \(machine.date)")
        LoopReport(samples: samples).lines().forEach { print($0) }
        if let json { try LoopResults(machine: machine, loop: samples).write(to: json) }
        if samples.allSatisfy({ $0.failure != nil }) { throw ExitCode.failure }
    }
}
