// SPDX-License-Identifier: Apache-2.0

import Histogram

/// All measurements of one invocation, and the questions a report asks of them.
struct Results {
    private(set) var measurements: [Measurement] = []
    private var latencies: [Key: Histogram<UInt64>] = [:]

    private struct Key: Hashable {
        let scenario: Scenario
        let contender: Contender
    }

    mutating func add(_ measurement: Measurement, latencies: Histogram<UInt64>?) {
        measurements.append(measurement)
        guard let latencies else { return }
        let key = Key(scenario: measurement.scenario, contender: measurement.contender)
        self.latencies[key, default: Latencies.empty()].add(latencies)
    }

    /// Percentiles over the samples of all rounds together.
    func latencies(_ scenario: Scenario, _ contender: Contender) -> Latencies? {
        latencies[Key(scenario: scenario, contender: contender)].map(Latencies.init)
    }

    func spread(
        _ scenario: Scenario, _ contender: Contender, of metric: (Measurement.Figures) -> Double
    ) -> Spread? {
        Spread(figures(scenario, contender).values.map(metric))
    }

    /// Each round's value over its own floor's, because both met the machine in the same mood.
    func ratio(
        _ scenario: Scenario, _ contender: Contender, of metric: (Measurement.Figures) -> Double
    ) -> Spread? {
        ratio(scenario, contender, to: contender.floor, of: metric)
    }

    /// The same, over another contender's.
    func ratio(
        _ scenario: Scenario, _ contender: Contender, to other: Contender,
        of metric: (Measurement.Figures) -> Double
    ) -> Spread? {
        let others = figures(scenario, other)
        return Spread(
            figures(scenario, contender).compactMap { round, figures in
                others[round].map { metric(figures) / metric($0) }
            })
    }

    /// How often each contender failed, with the last reason.
    var failures: [(contender: Contender, count: Int, reason: String)] {
        Contender.allCases.compactMap { contender in
            let reasons = measurements.filter { $0.contender == contender }.compactMap(\.failure)
            return reasons.last.map { (contender, reasons.count, $0) }
        }
    }

    var nothingMeasured: Bool { measurements.allSatisfy { $0.figures == nil } }

    var mismatched: [Measurement] { measurements.filter { ($0.figures?.mismatches ?? 0) > 0 } }

    /// By round.
    func figures(_ scenario: Scenario, _ contender: Contender) -> [Int: Measurement.Figures] {
        var byRound: [Int: Measurement.Figures] = [:]
        for measurement in measurements where measurement.scenario == scenario && measurement.contender == contender {
            byRound[measurement.round] = measurement.figures
        }
        return byRound
    }
}
