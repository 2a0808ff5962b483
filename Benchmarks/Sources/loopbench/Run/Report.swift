// SPDX-License-Identifier: Apache-2.0

/// The tables at the end of `loopbench run`.
struct Report {
    let machine: Machine
    let schedule: Schedule
    let results: Results
    /// Peers that were asked for and are not here.
    var absent: [AbsentPeer] = []
    /// What the peers that took part were built from.
    var versions: [String] = []

    func print() {
        lines().forEach { Swift.print($0) }
    }

    func lines() -> [String] {
        var lines = preamble
        for scenario in schedule.scenarios {
            lines += ["", scenario.title] + table(scenario).lines().map { "  " + $0 }
            let peers = PeersReport(results: results, contenders: schedule.contenders)
            if !peers.isEmpty { lines += [""] + peers.lines(scenario).map { "  " + $0 } }
        }
        return lines + failures + absences + closing
    }

    private var preamble: [String] {
        let pinning =
            if let server = machine.pinning.server, let generator = machine.pinning.generator {
                "server on CPU \(server), load generator on CPU \(generator)"
            } else {
                "nothing pinned: only one CPU"
            }
        return [
            "Linux \(machine.kernel), \(machine.cpu), \(machine.cores) CPUs, \(machine.date)",
            "\(schedule.rounds) rounds of \(schedule.measured) after \(schedule.warmup) of warm-up, \(pinning)",
        ] + (versions.isEmpty ? [] : ["peers: " + versions.joined(separator: "; ")])
    }

    private func table(_ scenario: Scenario) -> Table {
        var table = Table(header: [
            "contender", "requests/s", "rate / floor", "CPU us/request", "CPU / floor", "server busy",
            "p50 us", "p99 us", "p99.9 us",
        ])
        for contender in schedule.contenders {
            let latencies = results.latencies(scenario, contender)
            let rate = results.ratio(scenario, contender) { $0.requestsPerSecond }
            let cost = results.ratio(scenario, contender) { $0.serverMicrosecondsPerRequest }
            table.add([
                contender.rawValue,
                Format.fixed(results.spread(scenario, contender) { $0.requestsPerSecond }?.median, 0),
                contender.isFloor ? "" : Format.ratio(rate),
                Format.fixed(results.spread(scenario, contender) { $0.serverMicrosecondsPerRequest }?.median, 2),
                contender.isFloor ? "" : Format.ratio(cost),
                Format.percent(results.spread(scenario, contender) { $0.serverUtilization }?.median),
                Format.microseconds(latencies?.p50),
                Format.microseconds(latencies?.p99),
                Format.microseconds(latencies?.p999),
            ])
        }
        return table
    }

    private var failures: [String] {
        var lines: [String] = []
        for failure in results.failures {
            let all = results.measurements.count { $0.contender == failure.contender }
            lines.append("\(failure.contender.rawValue) failed \(failure.count) of \(all) times: \(failure.reason)")
        }
        for wrong in results.mismatched {
            lines.append(
                "WRONG BYTES from \(wrong.contender.rawValue) in \(wrong.scenario.title), round \(wrong.round)")
        }
        return lines.isEmpty ? [] : [""] + lines
    }

    private var absences: [String] {
        absent.isEmpty ? [] : [""] + absent.map { "not here: \($0.contender.rawValue): \($0.reason)" }
    }

    private var closing: [String] {
        [
            "",
            "Ratios are taken within a round and shown as median (min..max).",
            "More is better for the rate, less is better for CPU.",
            "Where the server is not busy the load generator sets the pace: compare CPU us/request there.",
            "",
            "Also:  loopbench counts            mallocs, kernel entries, instructions per echo: no clock in them",
            "       loopbench doctor            what this machine offers the loops",
            "       loopbench serve --help      a server for your own load generator",
            "       loopbench run --json FILE   every measurement, for other tools",
        ]
    }
}
