// SPDX-License-Identifier: Apache-2.0

/// Holds counts of one scenario against the thresholds.
struct ThresholdCheck {
    /// Start and end of two lives may differ by so many system calls or mallocs: a thread of the runtime that came up
    /// in one of them only.
    private static let straysPerLife = 4.0
    /// A count this far below its limit is worth a word.
    private static let tighteningMin = 0.10

    let scenario: Scenario
    let counts: [Contender: EchoCounts]
    /// Echoes between a short and a long life, by which strays are divided.
    let echoes: Int
    /// Counts that nobody asked for are not missed.
    let skipped: Set<CountKind>

    /// A sentence for every count over its limit, and for everything with a limit that was not counted.
    var complaints: [String] = []
    /// A sentence for every limit that is further above the count than it needs to be.
    var hints: [String] = []

    init(
        _ thresholds: [Thresholds], scenario: Scenario, counts: [Contender: EchoCounts], echoes: Int,
        skipped: Set<CountKind> = []
    ) {
        self.scenario = scenario
        self.counts = counts
        self.echoes = echoes
        self.skipped = skipped
        for file in thresholds {
            guard let contender = Contender(rawValue: file.contender), let own = counts[contender] else { continue }
            if let failure = own.failure {
                complaints.append("\(contender.rawValue), \(scenario.label): could not be counted: \(failure)")
                continue
            }
            let limits = file.scenarios[scenario.label] ?? [:]
            for kind in CountKind.allCases where !skipped.contains(kind) {
                guard let limit = limits[kind] else { continue }
                check(own[kind], kind, limit, contender)
            }
        }
    }

    private mutating func check(
        _ count: Double?, _ kind: CountKind, _ limit: Thresholds.Limit, _ contender: Contender
    ) {
        let subject = "\(contender.rawValue), \(scenario.label)"
        guard let count else { return complaints.append("\(subject): \(kind.title) were not counted") }
        guard let bound = Bound(limit, floor: counts[contender.floor]?[kind]) else {
            return complaints.append("\(subject): \(kind.title) of its floor were not counted")
        }
        let strays = kind.isPerEcho ? Self.straysPerLife / Double(echoes) : 0
        let figures = "\(kind.format(count)) \(kind.title), limit \(kind.format(bound.value))\(bound.origin(kind))"
        if bound.excess(of: count) > strays {
            complaints.append("\(subject): \(figures)")
        } else if !bound.isLeast, -bound.excess(of: count) > bound.value * Self.tighteningMin + strays {
            hints.append("\(subject): \(figures) could be tightened")
        }
    }
}

/// A limit in figures.
private struct Bound {
    let value: Double
    let isLeast: Bool
    private let times: Double?
    private let floor: Double?

    /// nil where the limit needs a floor and there is none.
    init?(_ limit: Thresholds.Limit, floor: Double?) {
        isLeast = limit.atLeastTimesFloor != nil
        times = limit.atMostTimesFloor ?? limit.atLeastTimesFloor
        self.floor = floor
        if let most = limit.atMost {
            value = most
        } else if let times, let floor {
            value = times * floor
        } else {
            return nil
        }
    }

    /// By how much a count is on the wrong side.
    func excess(of count: Double) -> Double { isLeast ? value - count : count - value }

    func origin(_ kind: CountKind) -> String {
        guard let times, let floor else { return "" }
        return " (\(Format.fixed(times, 2)) times the floor's \(kind.format(floor)))"
    }
}
