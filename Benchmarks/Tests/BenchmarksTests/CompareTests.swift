// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

@Suite(.serialized, .timeLimit(.minutes(5)))
struct CompareTests {
    private let scenario = Scenario(connections: 2, messageBytes: 64, depth: 1)

    private func measurement(round: Int, echoes: UInt64, busy: UInt64) -> Measurement {
        Measurement(
            round: round, scenario: scenario, contender: .selectorAsync,
            figures: .init(
                echoes: echoes, measuredNanoseconds: 1_000_000, mismatches: 0, serverNanoseconds: busy,
                latencyNanoseconds: Latencies(Latencies.empty())),
            failure: nil)
    }

    /// A round that is slow for both says nothing against either, and one that only one of them lived through counts
    /// for none.
    @Test func ratiosAreTakenWithinRounds() {
        var pairs = Pairs()
        for (round, own, other) in [(1, 120, 100), (2, 12, 10), (3, 90, 100)] as [(Int, UInt64, UInt64)] {
            pairs.own.add(measurement(round: round, echoes: own, busy: 1000), latencies: nil)
            pairs.other.add(measurement(round: round, echoes: other, busy: 1000), latencies: nil)
        }
        pairs.own.add(measurement(round: 4, echoes: 1_000, busy: 1), latencies: nil)

        let rate = pairs.ratio(scenario, .selectorAsync) { $0.requestsPerSecond }
        #expect(rate?.median == 1.2)
        #expect(rate?.min == 0.9)
        #expect(rate?.max == 1.2)
        let won = pairs.won(scenario, .selectorAsync) { $0.requestsPerSecond }
        #expect(won.rounds == 2 && won.of == 3)
        let cost = pairs.ratio(scenario, .selectorAsync) { $0.serverMicrosecondsPerRequest }
        #expect(cost.map { abs($0.median - 1 / 1.2) < 0.001 } == true)
    }

    @Test func bothBuildsServeInEveryRound() throws {
        let schedule = Schedule(
            contenders: [.selectorCallback], scenarios: [scenario], rounds: 2, warmup: .milliseconds(10),
            measured: .milliseconds(50))
        let same = try Programs.beside("loopbench")
        let pairs = Pairs.measured(schedule, otherBuild: same, CPUPlan(server: nil, generator: nil))
        #expect(pairs.won(scenario, .selectorCallback) { $0.requestsPerSecond }.of == 2)
        let lines = PairsReport(schedule: schedule, pairs: pairs).lines()
        #expect(lines.first == "2 connections x 64 bytes x depth 1")
        #expect(lines.contains { $0.contains("selector callback") && $0.contains(" of 2") })
    }

    /// What cannot be started is said, and nothing is divided by it.
    @Test func otherBuildThatDoesNotStartIsNamed() {
        let schedule = Schedule(
            contenders: [.selectorCallback], scenarios: [scenario], rounds: 1, warmup: .milliseconds(10),
            measured: .milliseconds(50))
        let pairs = Pairs.measured(schedule, otherBuild: "/nowhere/loopbench", CPUPlan(server: nil, generator: nil))
        #expect(pairs.ratio(scenario, .selectorCallback) { $0.requestsPerSecond } == nil)
        #expect(pairs.other.nothingMeasured && !pairs.own.nothingMeasured)
        let lines = PairsReport(schedule: schedule, pairs: pairs).lines()
        #expect(lines.contains { $0.hasPrefix("selector callback of the other failed 1 times: ") })
    }
}
