// SPDX-License-Identifier: Apache-2.0

import Histogram

/// The order in which measurements happen.
///
/// Rounds are interleaved: within a round every contender meets a scenario within seconds of the others, in random
/// order, so a slow minute of the machine hits all of them and cancels in the ratios.
struct Schedule {
    let contenders: [Contender]
    let scenarios: [Scenario]
    let rounds: Int
    let warmup: Duration
    let measured: Duration

    func run(_ plan: CPUPlan) -> Results {
        let generator = Generator()
        var results = Results()
        for round in 1...rounds {
            for scenario in scenarios {
                for contender in contenders.shuffled() {
                    let (measurement, latencies) = measure(round, scenario, contender, generator, plan)
                    results.add(measurement, latencies: latencies)
                    report(measurement)
                }
            }
        }
        return results
    }

    /// One fresh server process, one run of the generator.
    /// - Parameter build: Another build's `loopbench`, to serve in place of this one.
    func measure(
        _ round: Int, _ scenario: Scenario, _ contender: Contender, build: String? = nil, _ generator: Generator,
        _ plan: CPUPlan
    ) -> (Measurement, Histogram<UInt64>?) {
        do {
            var command = try contender.command()
            if let build { command[0] = build }
            let server = try ServerProcess(command: command, cpu: plan.server)
            let outcome = try generator.run(
                scenario, for: .time(warmup: warmup, measured: measured), against: server, cpu: plan.generator
            )
            server.stop()
            guard outcome.echoes > 0 else { throw BenchmarkFailure("no echo came back in the measured time") }
            let figures = Measurement.Figures(
                echoes: outcome.echoes,
                measuredNanoseconds: outcome.measuredNanoseconds,
                mismatches: outcome.mismatches,
                serverNanoseconds: outcome.serverNanoseconds,
                latencyNanoseconds: Latencies(outcome.latencies)
            )
            return (
                Measurement(round: round, scenario: scenario, contender: contender, figures: figures, failure: nil),
                outcome.latencies
            )
        } catch {
            return (
                Measurement(
                    round: round, scenario: scenario, contender: contender, figures: nil, failure: "\(error)"
                ),
                nil
            )
        }
    }

    func report(_ measurement: Measurement, build: String? = nil) {
        let contender = measurement.contender.rawValue + (build.map { ", \($0)" } ?? "")
        let what = "round \(measurement.round)/\(rounds)  \(measurement.scenario.label)  \(contender)"
        guard let figures = measurement.figures else {
            return printToStandardError("\(what)  failed: \(measurement.failure ?? "")")
        }
        printToStandardError("\(what)  \(Format.fixed(figures.requestsPerSecond, 0)) requests/s")
    }
}
