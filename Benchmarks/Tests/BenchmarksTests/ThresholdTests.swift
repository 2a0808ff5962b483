// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

/// Thresholds are read strictly, and every count on the wrong side of one is named.
struct ThresholdTests {
    private static let file = """
        {
          "contender": "selector async",
          "scenarios": {
            "1/64/1": {
              "completionsPerEntry": { "atLeastTimesFloor": 0.9 },
              "instructions": { "atMostTimesFloor": 2, "why": "not there yet" },
              "kernelEntries": { "atMostTimesFloor": 1.05 },
              "mallocs": { "atMost": 0 },
              "retains": { "atMost": 2 }
            }
          }
        }
        """
    private let scenario = Scenario(connections: 1, messageBytes: 64, depth: 1)
    private let floor = ThresholdTests.counts(mallocs: 0, entries: 3, instructions: 400, retains: 0)

    private static func counts(
        mallocs: Double, entries: Double, instructions: Double, retains: Double, completions: Double = 1000
    ) -> EchoCounts {
        var counts = EchoCounts(
            own: ["mallocs": mallocs, "completions": completions, "entries": 1000, "ticks": 1000],
            syscalls: ["recvfrom": 1, "sendto": entries - 1])
        counts.instructions = instructions
        counts.retains = retains
        return counts
    }

    private func check(_ counts: EchoCounts, floor: EchoCounts?, echoes: Int = 1000) throws -> ThresholdCheck {
        let all = [Contender.selectorAsync: counts].merging(floor.map { [.libevFloor: $0] } ?? [:]) { $1 }
        return ThresholdCheck(
            [try Thresholds.decode(Self.file)], scenario: scenario, counts: all, echoes: echoes)
    }

    @Test func whatKeepsItsLimits() throws {
        let good = Self.counts(mallocs: 0.002, entries: 3.1, instructions: 790, retains: 2)
        let outcome = try check(good, floor: floor)
        #expect(outcome.complaints.isEmpty)
        #expect(outcome.hints.isEmpty)
    }

    @Test func whatDoesNot() throws {
        let bad = Self.counts(mallocs: 0.1, entries: 3.2, instructions: 801, retains: 3, completions: 800)
        let complaints = try check(bad, floor: floor).complaints
        #expect(
            complaints == [
                "selector async, 1/64/1: 0.100 mallocs per echo, limit 0.000",
                "selector async, 1/64/1: 3.200 kernel entries per echo, limit 3.150 (1.05 times the floor's 3.000)",
                "selector async, 1/64/1: 801 instructions per echo, limit 800 (2.00 times the floor's 400)",
                "selector async, 1/64/1: 3.000 retains per echo, limit 2.000",
                "selector async, 1/64/1: 0.80 completions per entry, limit 0.90 (0.90 times the floor's 1.00)",
            ])
    }

    @Test func whatCouldBeTightened() throws {
        let better = Self.counts(mallocs: 0, entries: 3, instructions: 600, retains: 0)
        let outcome = try check(better, floor: floor)
        #expect(outcome.complaints.isEmpty)
        #expect(outcome.hints.count == 2)
        #expect(outcome.hints.first?.contains("600 instructions per echo") == true)
    }

    /// What was not counted was not checked.
    @Test func whatIsMissing() throws {
        let uncounted = EchoCounts(own: ["mallocs": 0, "completions": 1, "entries": 1, "ticks": 1])
        #expect(try check(uncounted, floor: floor).complaints.count == 3, "entries, instructions, retains")
        let good = Self.counts(mallocs: 0, entries: 3, instructions: 790, retains: 2)
        #expect(try check(good, floor: nil).complaints.count == 3, "entries, instructions, completions per entry")
        #expect(try check(EchoCounts(failure: "refused"), floor: floor).complaints.count == 1)
    }

    @Test func filesAreReadStrictly() {
        for (wrong, right) in [("\"atMost\": 0 ", "\"why\": \"none\""), ("selector", "detector"), ("1/64/1", "1/64")] {
            #expect(throws: (any Error).self) {
                try Thresholds.decode(Self.file.replacing(wrong, with: right))
            }
        }
    }

    /// The files of this package.
    @Test func allLoopsHaveThresholds() throws {
        let directory = try #require(try Programs.folderAbove("Thresholds"))
        let files = try Thresholds.load(from: directory)
        let loops = Contender.ours.filter { !$0.isFloor }.map(\.rawValue)
        #expect(Set(files.map(\.contender)).isSuperset(of: loops))
        for file in files {
            #expect(Set(file.scenarios.keys) == Set(Scenario.counted.map(\.label)), "\(file.contender)")
        }
    }
}
