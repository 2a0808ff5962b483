// SPDX-License-Identifier: Apache-2.0
//
// Figures.swift: what one measurement found, and the line it travels on from process to process.

import FoundationEssentials

/// What was found. nil: does not apply, or was not counted.
public struct Figures: Codable, Sendable {
    public var operations = 0
    public var nanosecondsPerOperation: Double?
    /// Of the whole process. Counted only with AllocationCounter preloaded, which takes time of its own.
    public var mallocsPerOperation: Double?
    public var eventfdWritesPerOperation: Double?
    /// Of single operations where each is timed: latencies, and how late a sleep ended.
    public var nanosecondsMin: Double?
    public var nanosecondsP50: Double?
    public var nanosecondsP99: Double?
    /// Of an idle loop: passes, and context switches its thread made by itself.
    public var passes: Int?
    public var voluntarySwitches: Int?
    public var failure: String?

    public init() {}

    public init(failure: String) { self.failure = failure }

    /// Of operations that were timed one by one. The median stands for their time.
    @usableFromInline init(each nanoseconds: [Double]) {
        let sorted = nanoseconds.sorted()
        guard !sorted.isEmpty else { return }
        operations = sorted.count
        nanosecondsMin = sorted[0]
        nanosecondsP50 = sorted[sorted.count / 2]
        nanosecondsP99 = sorted[min(sorted.count - 1, sorted.count * 99 / 100)]
        nanosecondsPerOperation = nanosecondsP50
    }

    /// Prints them as the one line that the program says.
    public func printLine() throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        print(String(decoding: try encoder.encode(self), as: UTF8.self))
    }

    public init(line: String) throws { self = try JSONDecoder().decode(Figures.self, from: Data(line.utf8)) }
}
