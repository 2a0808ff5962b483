// SPDX-License-Identifier: Apache-2.0

extension CountsJSON {
    /// Counts of the contenders that `run --report` measured, as `loopbench counts` takes them. Peers are not counted:
    /// they do not end by themselves when their connections have.
    static func counted(_ machine: Machine, _ plan: CPUPlan, _ contenders: [Contender]) -> CountsJSON {
        var record = CountsJSON(machine: machine)
        for connections in [1, 50] {
            let scenario = Scenario(connections: connections, messageBytes: 64, depth: 1)
            let counter = EchoCounter(
                scenario: scenario, waves: connections == 1 ? 200 : 100, repetitions: 1, plan: plan,
                callgrind: Callgrind(), profiles: nil)
            var counts: [Contender: EchoCounts] = [:]
            for contender in contenders where contender.peer == nil {
                printToStandardError("counting \(contender.rawValue), \(scenario.label)")
                counts[contender] = counter.count(contender)
            }
            record.add(scenario, counts)
        }
        return record
    }
}
