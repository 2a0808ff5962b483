// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `loopbench counts`: costs that can be counted, and so compared from machine to machine.
struct Counts: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Counts mallocs and kernel entries per echo and compares them with the floors."
    )

    @Option(help: "Connections, each with one 64-byte message in flight; may be given several times.")
    var connections = [1, 50]

    @Option(help: "Echoes on each connection that are counted.")
    var messages = 1000

    @Option(help: "How often each count is taken; the median is reported.")
    var repetitions = 3

    @Flag(help: "Exit with 1 when a loop costs more than its limits.")
    var check = false

    func validate() throws {
        guard !connections.isEmpty, connections.allSatisfy({ 1...10_000 ~= $0 }) else {
            throw ValidationError("--connections must be from 1 to 10000.")
        }
        guard messages >= 1 else { throw ValidationError("--messages must be at least 1.") }
        guard repetitions >= 1 else { throw ValidationError("--repetitions must be at least 1.") }
    }

    func run() throws {
        if SyscallCount() == nil {
            printToStandardError("strace is missing, so system calls are not counted: apt-get install strace")
        }
        var complaints: [String] = []
        var allFailed = true
        for connections in connections {
            let counts = count(connections)
            print("\(connections) connection\(connections == 1 ? "" : "s") x 64 bytes x depth 1")
            CountsReport(counts: counts).lines().forEach { print($0) }
            complaints += CountLimits.complaints(about: counts, connections: connections)
            if counts.values.contains(where: { $0.failure == nil }) { allFailed = false }
        }
        if allFailed { throw ExitCode.failure }
        guard check else { return }
        complaints.forEach { print("check failed: \($0)") }
        if !complaints.isEmpty { throw ExitCode.failure }
    }

    private func count(_ connections: Int) -> [Contender: EchoCounts] {
        let counter = EchoCounter(
            connections: connections, messages: messages, repetitions: repetitions, plan: .available()
        )
        var counts: [Contender: EchoCounts] = [:]
        for contender in Contender.ours {
            printToStandardError("counting \(contender.rawValue)")
            counts[contender] = counter.count(contender)
        }
        return counts
    }
}
