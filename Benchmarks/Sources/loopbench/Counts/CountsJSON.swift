// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Everything counted, for other tools. What is not known is null.
struct CountsJSON: Encodable {
    let machine: Machine
    var counts: [Row] = []

    struct Row: Encodable {
        let contender: String
        let scenario: Scenario
        let own: EchoCounts

        private enum Key: String, CodingKey { case contender, scenario, syscalls, failure }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: Key.self)
            try container.encode(contender, forKey: .contender)
            try container.encode(scenario, forKey: .scenario)
            try container.encode(own.notableSyscalls, forKey: .syscalls)
            try container.encode(own.failure, forKey: .failure)
            var figures = encoder.container(keyedBy: CountKind.self)
            for kind in CountKind.allCases { try figures.encode(own[kind], forKey: kind) }
        }
    }

    mutating func add(_ scenario: Scenario, _ counts: [Contender: EchoCounts]) {
        for contender in Contender.allCases {
            guard let own = counts[contender] else { continue }
            self.counts.append(Row(contender: contender.rawValue, scenario: scenario, own: own))
        }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
    }
}
