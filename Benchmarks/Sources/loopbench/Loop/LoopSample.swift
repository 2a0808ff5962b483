// SPDX-License-Identifier: Apache-2.0
//
// LoopSample.swift: one measurement of one round, as it is kept and written.

import FoundationEssentials
import LoopMeasuring

/// One contender's figures in one round, flat, so that other tools find every name at once.
struct LoopSample: Codable {
    let subject: String
    let contender: String
    let pending: Int
    let threads: Int
    let round: Int
    var nanosecondsPerOperation: Double?
    /// Taken once, in a process of their own, as counting costs time.
    var mallocsPerOperation: Double?
    var eventfdWritesPerOperation: Double?
    var nanosecondsMin: Double?
    var nanosecondsP50: Double?
    var nanosecondsP99: Double?
    var passes: Int?
    var voluntarySwitches: Int?
    var failure: String?

    init(_ configuration: LoopConfiguration, _ contender: LoopContender, round: Int, _ timed: Figures, counted: Figures)
    {
        subject = configuration.subject.rawValue
        self.contender = contender.rawValue
        pending = configuration.pending
        threads = configuration.threads
        self.round = round
        nanosecondsPerOperation = timed.nanosecondsPerOperation
        mallocsPerOperation = counted.mallocsPerOperation
        eventfdWritesPerOperation = counted.eventfdWritesPerOperation
        nanosecondsMin = timed.nanosecondsMin
        nanosecondsP50 = timed.nanosecondsP50
        nanosecondsP99 = timed.nanosecondsP99
        passes = timed.passes
        voluntarySwitches = timed.voluntarySwitches
        failure = timed.failure
    }
}

/// Everything measured, for other tools.
struct LoopResults: Codable {
    let machine: Machine
    let loop: [LoopSample]

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
    }
}
