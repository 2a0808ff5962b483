// SPDX-License-Identifier: Apache-2.0

/// Counts of the contenders that `run --report` measured, in the form of `counts --json`.
struct CountsDocument: Encodable {
    let machine: Machine
    let command: String
    let counts: [Entry]

    struct Entry: Encodable {
        let contender: Contender
        let scenario: Scenario
        let mallocs: Double?
        let kernelEntries: Double?
        let syscalls: [String: Double]?
        let failure: String?
    }

    /// As `loopbench counts` counts when it is told nothing else.
    static func counted(_ machine: Machine, _ plan: CPUPlan, _ contenders: [Contender]) -> CountsDocument {
        var entries: [Entry] = []
        for connections in [1, 50] {
            let counter = EchoCounter(connections: connections, messages: 1000, repetitions: 3, plan: plan)
            let scenario = Scenario(connections: connections, messageBytes: 64, depth: 1)
            for contender in contenders where contender.peer == nil {
                printToStandardError("counting \(contender.rawValue), \(scenario.label)")
                let own = counter.count(contender)
                entries.append(
                    Entry(
                        contender: contender, scenario: scenario, mallocs: own.mallocs,
                        kernelEntries: own.kernelEntries, syscalls: own.syscalls, failure: own.failure))
            }
        }
        return CountsDocument(machine: machine, command: "loopbench counts", counts: entries)
    }
}
