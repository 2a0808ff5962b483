// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// What an echo through one contender may cost: one file of `Benchmarks/Thresholds`.
struct Thresholds: Codable {
    /// The name in reports, such as `proactor async`.
    let contender: String
    /// Limits by the scenario's label, such as `50/64/1`, and the count's name.
    let scenarios: [String: [CountKind: Limit]]

    /// One bound, and if it is not yet where it should be, why.
    struct Limit: Codable, Equatable {
        var atMost: Double?
        var atMostTimesFloor: Double?
        var atLeastTimesFloor: Double?
        var why: String?
    }

    /// All files of a folder.
    /// - Throws: ``BenchmarkFailure`` naming the file that cannot be read, or the folder when it has none.
    static func load(from directory: String) throws -> [Thresholds] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        let files = names.filter { $0.hasSuffix(".json") }.sorted()
        guard !files.isEmpty else { throw BenchmarkFailure("no thresholds in \(directory): name their folder") }
        return try files.map { name in
            guard let text = text(ofFile: "\(directory)/\(name)") else {
                throw BenchmarkFailure("\(directory)/\(name) cannot be read")
            }
            do { return try decode(text) } catch { throw BenchmarkFailure("\(directory)/\(name): \(error)") }
        }
    }

    static func decode(_ text: String) throws -> Thresholds {
        let thresholds = try JSONDecoder().decode(Thresholds.self, from: Data(text.utf8))
        guard Contender(rawValue: thresholds.contender) != nil else {
            throw BenchmarkFailure("no contender is called \"\(thresholds.contender)\"")
        }
        for (scenario, limits) in thresholds.scenarios {
            guard Scenario(label: scenario) != nil else { throw BenchmarkFailure("\(scenario) is no scenario") }
            for (kind, limit) in limits where limit.bounds != 1 {
                throw BenchmarkFailure("\(scenario), \(kind.rawValue): one bound is needed, not \(limit.bounds)")
            }
        }
        return thresholds
    }
}

extension Thresholds.Limit {
    fileprivate var bounds: Int { [atMost, atMostTimesFloor, atLeastTimesFloor].count { $0 != nil } }
}
