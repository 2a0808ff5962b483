// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// All measurements of one invocation, and the questions its report asks.
struct GrowthResults: Encodable {
    let machine: Machine
    let growth: [GrowthMeasurement]

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
    }

    func spread(
        _ figure: GrowthFigure, _ measure: GrowthMeasure, _ contender: Contender, _ connections: Int
    ) -> Spread? {
        Spread(Array(byRound(figure, measure, contender, connections).values))
    }

    /// Taken within a round, as everywhere.
    func ratioToFloor(
        _ figure: GrowthFigure, _ measure: GrowthMeasure, _ contender: Contender, _ connections: Int
    ) -> Spread? {
        let floors = byRound(figure, measure, contender.floor, connections)
        return Spread(
            byRound(figure, measure, contender, connections).compactMap { round, value in
                floors[round].map { value / $0 }
            })
    }

    /// CPU per request with `many` connections over that with `few`, divided by the same of the floor: 1 grows as the
    /// floor does.
    func growthOverFloor(_ contender: Contender, few: Int, many: Int) -> Spread? {
        func growth(_ contender: Contender) -> [Int: Double] {
            let small = byRound(.serverMicrosecondsPerRequest, .echo, contender, few)
            let large = byRound(.serverMicrosecondsPerRequest, .echo, contender, many)
            return large.compactMapValues { $0 }.reduce(into: [:]) { result, entry in
                if let base = small[entry.key] { result[entry.key] = entry.value / base }
            }
        }
        let floor = growth(contender.floor)
        return Spread(growth(contender).compactMap { round, value in floor[round].map { value / $0 } })
    }

    private func byRound(
        _ figure: GrowthFigure, _ measure: GrowthMeasure, _ contender: Contender, _ connections: Int
    ) -> [Int: Double] {
        var values: [Int: Double] = [:]
        for one in growth
        where one.measure == measure && one.contender == contender && one.connections == connections {
            values[one.round] = one.figures[figure]
        }
        return values
    }
}
