// SPDX-License-Identifier: Apache-2.0

/// One contender in one scenario of one round: what was measured, or why not.
struct Measurement: Codable {
    let round: Int
    let scenario: Scenario
    let contender: Contender
    let figures: Figures?
    let failure: String?

    struct Figures: Codable {
        let echoes: UInt64
        let measuredNanoseconds: UInt64
        let mismatches: UInt64
        let serverNanoseconds: UInt64
        let latencyNanoseconds: Latencies

        var requestsPerSecond: Double {
            Double(echoes) * 1e9 / Double(measuredNanoseconds)
        }

        var serverMicrosecondsPerRequest: Double {
            Double(serverNanoseconds) / 1e3 / Double(echoes)
        }

        /// How much of one CPU the server used. Well below 1, it was the load generator that was busy.
        var serverUtilization: Double {
            Double(serverNanoseconds) / Double(measuredNanoseconds)
        }
    }
}
