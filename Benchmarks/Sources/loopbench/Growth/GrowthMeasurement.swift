// SPDX-License-Identifier: Apache-2.0

/// What is measured, by the name it has in reports and in JSON.
enum GrowthMeasure: String, CaseIterable, Codable {
    case echo, memory, accept, churn
    case slow = "slow reader"
    case mixed = "mixed sizes"

    /// The word `--only` takes: the first of the name.
    var word: String { rawValue.split(separator: " ").first.map(String.init) ?? rawValue }
}

/// Every figure, by its name in JSON, which ends in the unit.
enum GrowthFigure: String, CaseIterable {
    case requestsPerSecond, bytesPerSecond, connectionsPerSecond
    case serverMicrosecondsPerRequest, serverMicrosecondsPerConnection
    case p50Nanoseconds, p99Nanoseconds
    case userBytesPerConnectionBeforeEcho, userBytesPerConnection, kernelBytesPerConnection
    case requestsPerSecondWithoutSlowReader, slowReaderRatio, slowReaderBytes
    case serverBytesGrown, serverDescriptorsLeft, serverBytesLeft
    case generatorProcesses, mismatches
}

/// One contender in one measure of one round. Figures may be there beside a failure: what was seen before it.
struct GrowthMeasurement: Encodable {
    let measure: GrowthMeasure
    let contender: Contender
    let connections: Int
    let round: Int
    let serverProcesses: Int
    let figures: [GrowthFigure: Double]
    let failure: String?

    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    /// Flat: figures lie beside the names, and `failure` is there also when it is null.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Name.self)
        try container.encode(measure, forKey: Name(stringValue: "measure"))
        try container.encode(contender.rawValue, forKey: Name(stringValue: "contender"))
        try container.encode(connections, forKey: Name(stringValue: "connections"))
        try container.encode(round, forKey: Name(stringValue: "round"))
        try container.encode(serverProcesses, forKey: Name(stringValue: "serverProcesses"))
        for (figure, value) in figures where value.isFinite {
            try container.encode(value, forKey: Name(stringValue: figure.rawValue))
        }
        try container.encode(failure, forKey: Name(stringValue: "failure"))
    }
}
