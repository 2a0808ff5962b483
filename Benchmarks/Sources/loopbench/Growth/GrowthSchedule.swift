// SPDX-License-Identifier: Apache-2.0

/// Which measures, how often, and in which order: as in `Schedule`, all contenders meet a measure within seconds of
/// each other.
struct GrowthSchedule {
    let measures: [GrowthMeasure]
    let connections: [Int]
    let contenders: [Contender]
    let rounds: Int
    let settings: GrowthSettings

    static let crowd = 50

    func run() -> [GrowthMeasurement] {
        var measurements: [GrowthMeasurement] = []
        for round in 1...rounds {
            for (measure, connections) in steps {
                for contender in contenders.shuffled() {
                    let measurement = take(measure, contender, connections, round)
                    report(measurement)
                    measurements.append(measurement)
                }
            }
        }
        return measurements
    }

    /// Each measure with the connections it is taken at.
    var steps: [(GrowthMeasure, Int)] {
        measures.flatMap { measure -> [(GrowthMeasure, Int)] in
            switch measure {
            case .echo: connections.map { (measure, $0) }
            case .memory: [(measure, settings.memoryConnections)]
            case .accept: [(measure, settings.acceptConnections)]
            case .churn, .slow, .mixed: [(measure, Self.crowd)]
            }
        }
    }

    private func take(
        _ measure: GrowthMeasure, _ contender: Contender, _ connections: Int, _ round: Int
    ) -> GrowthMeasurement {
        var figures: [GrowthFigure: Double] = [:]
        var failure: String?
        do {
            (figures, failure) = try GrowthMeasures(settings: settings).take(
                measure, contender, connections: connections)
        } catch {
            failure = "\(error)"
        }
        return GrowthMeasurement(
            measure: measure, contender: contender, connections: connections, round: round,
            serverProcesses: (try? settings.serverProcesses(for: connections)) ?? 0, figures: figures,
            failure: failure)
    }

    private func report(_ measurement: GrowthMeasurement) {
        let what =
            "round \(measurement.round)/\(rounds)  \(measurement.measure.rawValue)  \(measurement.connections)  "
            + measurement.contender.rawValue
        printToStandardError(what + (measurement.failure.map { "  failed: \($0)" } ?? ""))
    }
}
