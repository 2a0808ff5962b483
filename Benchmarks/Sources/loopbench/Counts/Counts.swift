// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FoundationEssentials

/// `loopbench counts`: costs that can be counted, and so compared from machine to machine.
struct Counts: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Counts what an echo costs (mallocs, kernel entries, instructions) and compares with the floors."
    )

    @Option(help: "Connections/bytes/depth; may be given several times.")
    var scenario = Scenario.counted

    @Option(help: "Only this contender and its floor, as \"proactor async\"; may be given several times.")
    var only: [String] = []

    @Option(
        help: """
            Waves that are counted; in each, every connection has all its messages echoed. (default: 1000 with one \
            connection, else 100)
            """)
    var waves: Int?

    @Option(help: "How often each life is repeated; the least of each count is taken.")
    var repetitions = 2

    @Option(
        help: ArgumentHelp(
            "Print where each contender's instructions go, and keep callgrind's files there.", valueName: "dir"))
    var profile: String?

    @Option(help: ArgumentHelp("Write every count and the machine's facts there.", valueName: "file"))
    var json: String?

    @Flag(help: "Exit with 1 when a loop costs more than its thresholds say.")
    var check = false

    @Option(help: ArgumentHelp("Where they are. (default: Thresholds above this program)", valueName: "dir"))
    var thresholds: String?

    func validate() throws {
        guard waves ?? 1 >= 1 else { throw ValidationError("--waves must be at least 1.") }
        guard repetitions >= 1 else { throw ValidationError("--repetitions must be at least 1.") }
        for name in only where Contender(rawValue: name) == nil {
            let names = Contender.ours.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
            throw ValidationError("\(name) is none of \(names).")
        }
    }

    func run() throws {
        sayWhatIsMissing()
        let limits = check ? try Thresholds.load(from: thresholds ?? Programs.folderAbove("Thresholds") ?? ".") : []
        if let profile { try FileManager.default.createDirectory(atPath: profile, withIntermediateDirectories: true) }
        let plan = CPUPlan.available()
        var record = CountsJSON(machine: .present(plan))
        var complaints: [String] = []
        var hints: [String] = []
        for scenario in scenario {
            let counter = EchoCounter(
                scenario: scenario, waves: waves ?? (scenario.connections == 1 ? 1000 : 100), repetitions: repetitions,
                plan: plan, callgrind: Callgrind(), profiles: profile)
            let counts = count(counter)
            print("\(scenario.title), per echo")
            CountsReport(counts: counts).lines().forEach { print($0) }
            if profile != nil { printProfiles(counts) }
            print("")
            record.add(scenario, counts)
            let outcome = ThresholdCheck(limits, scenario: scenario, counts: counts, echoes: counter.echoes)
            complaints += outcome.complaints
            hints += outcome.hints
        }
        if let json { try record.write(to: json) }
        hints.forEach { print($0) }
        complaints.forEach { print("check failed: \($0)") }
        let allFailed = record.counts.allSatisfy { $0.own.failure != nil }
        if allFailed || !complaints.isEmpty { throw ExitCode.failure }
    }

    private func count(_ counter: EchoCounter) -> [Contender: EchoCounts] {
        var counts: [Contender: EchoCounts] = [:]
        for contender in contenders {
            printToStandardError("counting \(contender.rawValue), \(counter.scenario.label)")
            counts[contender] = counter.count(contender)
        }
        return counts
    }

    private var contenders: [Contender] {
        let named = only.compactMap(Contender.init(rawValue:))
        guard !named.isEmpty else { return Contender.ours }
        return Contender.ours.filter { contender in
            named.contains { $0 == contender || $0.floor == contender }
        }
    }

    private func sayWhatIsMissing() {
        if SyscallCount() == nil {
            printToStandardError("strace is missing, so system calls are not counted: apt-get install strace")
        }
        if Callgrind() == nil {
            printToStandardError("valgrind is missing, so instructions are not counted: apt-get install valgrind")
        }
    }

    private func printProfiles(_ counts: [Contender: EchoCounts]) {
        for contender in Contender.ours {
            guard let profile = counts[contender]?.profile else { continue }
            ProfileReport(contender: contender, profile: profile).lines().forEach { print($0) }
        }
    }
}
