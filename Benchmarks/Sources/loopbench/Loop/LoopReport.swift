// SPDX-License-Identifier: Apache-2.0
//
// LoopReport.swift: the tables of `loopbench loop`.

import LoopMeasuring

/// A line for each contender of each measurement: median and range of the rounds.
struct LoopReport {
    let samples: [LoopSample]

    private struct Key: Hashable {
        let subject: String, pending: Int, threads: Int
    }

    func lines() -> [String] {
        var lines: [String] = []
        for subject in Subject.allCases {
            let own = samples.filter { $0.subject == subject.rawValue }
            guard !own.isEmpty else { continue }
            lines += ["", subject.rawValue] + table(subject, own).lines()
            lines += failures(own)
        }
        return lines
    }

    private func table(_ subject: Subject, _ samples: [LoopSample]) -> Table {
        let circumstance = subject.isTimer ? "pending" : "threads"
        let isEach = samples.contains { $0.nanosecondsP99 != nil }
        var table = Table(
            header: ["contender", circumstance]
                + (subject == .idle
                    ? ["passes", "voluntary switches"]
                    : (isEach ? ["min us", "p50 us", "p99 us"] : ["ns", "ns range", "times ours"])
                        + ["mallocs", "eventfd writes"]))
        for circumstances in Self.inOrder(
            samples.map { Key(subject: $0.subject, pending: $0.pending, threads: $0.threads) })
        {
            let same = samples.filter { $0.pending == circumstances.pending && $0.threads == circumstances.threads }
            let best = LoopContender.ours.compactMap { Self.median(same, $0, \.nanosecondsPerOperation) }.max()
            for contender in LoopContender.allCases {
                let rounds = same.filter { $0.contender == contender.rawValue && $0.failure == nil }
                guard !rounds.isEmpty else { continue }
                let number = subject.isTimer ? circumstances.pending : circumstances.threads
                table.add([contender.rawValue, Format.fixed(Double(number), 0)] + cells(subject, isEach, rounds, best))
            }
        }
        return table
    }

    private func cells(_ subject: Subject, _ isEach: Bool, _ rounds: [LoopSample], _ ours: Double?) -> [String] {
        func spread(_ value: (LoopSample) -> Double?) -> Spread? { Spread(rounds.compactMap(value)) }
        if subject == .idle {
            return [
                Format.fixed(spread { $0.passes.map(Double.init) }?.max, 0),
                Format.fixed(spread { $0.voluntarySwitches.map(Double.init) }?.max, 0),
            ]
        }
        let counts = [
            Format.fixed(spread(\.mallocsPerOperation)?.median, 3),
            Format.fixed(spread(\.eventfdWritesPerOperation)?.median, 4),
        ]
        if isEach {
            let lowest = spread(\.nanosecondsMin)?.min
            let others = [spread(\.nanosecondsP50)?.median, spread(\.nanosecondsP99)?.median]
            return ([lowest] + others).map { Format.fixed($0.map { $0 / 1000 }, 1) } + counts
        }
        guard let time = spread(\.nanosecondsPerOperation) else { return ["-", "-", "-"] + counts }
        return [
            Format.fixed(time.median, 1), "\(Format.fixed(time.min, 1))..\(Format.fixed(time.max, 1))",
            Format.fixed(ours.map { time.median / $0 }, 2),
        ] + counts
    }

    private static func median(
        _ samples: [LoopSample], _ contender: LoopContender, _ value: (LoopSample) -> Double?
    ) -> Double? {
        Spread(samples.filter { $0.contender == contender.rawValue }.compactMap(value))?.median
    }

    private static func inOrder(_ keys: [Key]) -> [Key] {
        var seen: Set<Key> = []
        return keys.filter { seen.insert($0).inserted }.sorted { ($0.pending, $0.threads) < ($1.pending, $1.threads) }
    }

    private func failures(_ samples: [LoopSample]) -> [String] {
        LoopContender.allCases.compactMap { contender in
            let reasons = samples.filter { $0.contender == contender.rawValue }.compactMap(\.failure)
            return reasons.last.map { "\(contender.rawValue): not measured, \(reasons.count) times: \($0)" }
        }
    }
}
