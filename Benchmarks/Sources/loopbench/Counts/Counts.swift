// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import FoundationEssentials

/// `loopbench counts`: costs that can be counted, and so compared from machine to machine.
struct Counts: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Counts what an echo costs (mallocs, kernel entries, instructions) and compares with the floors."
    )

    @Option(help: "Connections; may be given several times.")
    var connections = [1, 50]

    @Option(help: "Bytes of a message.")
    var bytes = 64

    @Option(help: "Messages in flight on each connection.")
    var depth = 1

    @Option(help: "Only this contender and its floor, as \"proactor async\"; may be given several times.")
    var only: [String] = []

    @Option(help: "Echoes on each connection that are counted.")
    var messages = 1000

    @Option(help: "How often mallocs and system calls are counted; the median is reported.")
    var repetitions = 3

    @Option(
        help: ArgumentHelp(
            "Print where each contender's instructions go, and keep callgrind's files there.", valueName: "dir"))
    var profile: String?

    @Flag(help: "Exit with 1 when a loop costs more than its limits.")
    var check = false

    func validate() throws {
        guard !connections.isEmpty, connections.allSatisfy({ 1...10_000 ~= $0 }) else {
            throw ValidationError("--connections must be from 1 to 10000.")
        }
        guard bytes >= 1, depth >= 1 else { throw ValidationError("--bytes and --depth must be at least 1.") }
        guard messages >= 1 else { throw ValidationError("--messages must be at least 1.") }
        guard repetitions >= 1 else { throw ValidationError("--repetitions must be at least 1.") }
        for name in only where Contender(rawValue: name) == nil {
            let names = Contender.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
            throw ValidationError("\(name) is none of \(names).")
        }
    }

    func run() throws {
        if SyscallCount() == nil {
            printToStandardError("strace is missing, so system calls are not counted: apt-get install strace")
        }
        if Callgrind() == nil {
            printToStandardError("valgrind is missing, so instructions are not counted: apt-get install valgrind")
        }
        if let profile { try FileManager.default.createDirectory(atPath: profile, withIntermediateDirectories: true) }
        var complaints: [String] = []
        var allFailed = true
        for connections in connections {
            let scenario = Scenario(connections: connections, messageBytes: bytes, depth: depth)
            let counts = count(scenario)
            print("\(scenario.title), per echo")
            CountsReport(counts: counts).lines().forEach { print($0) }
            if profile != nil { printProfiles(counts) }
            complaints += CountLimits.complaints(about: counts, connections: connections)
            if counts.values.contains(where: { $0.failure == nil }) { allFailed = false }
        }
        if allFailed { throw ExitCode.failure }
        guard check else { return }
        complaints.forEach { print("check failed: \($0)") }
        if !complaints.isEmpty { throw ExitCode.failure }
    }

    private func count(_ scenario: Scenario) -> [Contender: EchoCounts] {
        let counter = EchoCounter(
            scenario: scenario, messages: messages, repetitions: repetitions, plan: .available(),
            callgrind: Callgrind(), profiles: profile
        )
        var counts: [Contender: EchoCounts] = [:]
        for contender in contenders {
            printToStandardError("counting \(contender.rawValue)")
            counts[contender] = counter.count(contender)
        }
        return counts
    }

    private var contenders: [Contender] {
        let named = only.compactMap(Contender.init(rawValue:))
        return only.isEmpty
            ? Contender.allCases
            : Contender.allCases.filter { contender in
                named.contains { $0 == contender || $0.floor == contender }
            }
    }

    private func printProfiles(_ counts: [Contender: EchoCounts]) {
        for contender in Contender.allCases {
            guard let profile = counts[contender]?.profile else { continue }
            ProfileReport(contender: contender, profile: profile).lines().forEach { print($0) }
        }
    }
}
