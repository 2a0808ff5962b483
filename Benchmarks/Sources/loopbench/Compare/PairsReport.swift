// SPDX-License-Identifier: Apache-2.0

/// The tables of `loopbench compare`.
struct PairsReport {
    let schedule: Schedule
    let pairs: Pairs

    func lines() -> [String] {
        var lines: [String] = []
        for scenario in schedule.scenarios {
            lines += [scenario.title] + table(scenario).lines().map { "  " + $0 } + [""]
        }
        return lines + complaints + [
            "This build over the other, within a round, as median (min..max) of \(schedule.rounds) rounds of"
                + " \(schedule.measured).",
            "More is better for the rate, less is better for CPU.",
        ]
    }

    private func table(_ scenario: Scenario) -> Table {
        var table = Table(header: [
            "contender", "requests/s", "other's", "rate ratio", "faster in", "CPU us/request", "other's", "CPU ratio",
            "p50 us", "other's", "p99 us", "other's",
        ])
        for contender in schedule.contenders {
            let latencies = pairs.own.latencies(scenario, contender)
            let others = pairs.other.latencies(scenario, contender)
            let won = pairs.won(scenario, contender) { $0.requestsPerSecond }
            table.add([
                contender.rawValue,
                Format.fixed(pairs.own.spread(scenario, contender) { $0.requestsPerSecond }?.median, 0),
                Format.fixed(pairs.other.spread(scenario, contender) { $0.requestsPerSecond }?.median, 0),
                Format.ratio(pairs.ratio(scenario, contender) { $0.requestsPerSecond }),
                "\(won.rounds) of \(won.of)",
                Format.fixed(pairs.own.spread(scenario, contender) { $0.serverMicrosecondsPerRequest }?.median, 2),
                Format.fixed(pairs.other.spread(scenario, contender) { $0.serverMicrosecondsPerRequest }?.median, 2),
                Format.ratio(pairs.ratio(scenario, contender) { $0.serverMicrosecondsPerRequest }),
                Format.microseconds(latencies?.p50), Format.microseconds(others?.p50),
                Format.microseconds(latencies?.p99), Format.microseconds(others?.p99),
            ])
        }
        return table
    }

    private var complaints: [String] {
        let failures = [("this build", pairs.own), ("the other", pairs.other)].flatMap { build, results in
            results.failures.map { "\($0.contender.rawValue) of \(build) failed \($0.count) times: \($0.reason)" }
        }
        let wrong = pairs.mismatched.map {
            "WRONG BYTES from \($0.contender.rawValue) in \($0.scenario.title), round \($0.round)"
        }
        return failures.isEmpty && wrong.isEmpty ? [] : failures + wrong + [""]
    }
}
