// SPDX-License-Identifier: Apache-2.0
//
// Subject.swift: what can be measured of a loop besides its sockets, and how a program is asked for it.

import ArgumentParser

/// One thing a loop does. The raw value is its name in tables, JSON and `--only`.
public enum Subject: String, CaseIterable, Codable, Sendable, ExpressibleByArgument {
    /// A random one of the pending timers is cancelled, and one at a random time takes its place.
    case timerPair = "timer schedule+cancel"
    /// The same with deadlines as time-outs have them: a fixed time from now.
    case timerRearm = "timer re-arm"
    case timerSchedule = "timer schedule"
    case timerCancel = "timer cancel"
    /// All that are pending are due.
    case timerFire = "timer fire"
    /// On the loop's thread: queued and run, a thousand at a time.
    case callSoon = "callSoon"
    /// From other threads, as fast as they can, until all have run.
    case callThreadsafe = "callSoonThreadsafe"
    /// From another thread to a loop that sleeps: from the call until it runs.
    case callLatency = "callSoonThreadsafe latency"
    /// An empty task, from its making to its end, a thousand at a time.
    case spawn = "spawn"
    /// Two tasks of one loop wake each other in turn.
    case awaitResume = "await-resume"
    /// A task of the loop calls an actor of the loop.
    case actorCall = "actor call"
    /// How late a sleep of 500 us ends, on a loop with nothing else to do.
    case sleep = "sleep 500 us"
    /// How often a loop wakes that has nothing to do, but for a timer in an hour.
    case idle = "idle"

    public var isTimer: Bool {
        [.timerPair, .timerRearm, .timerSchedule, .timerCancel, .timerFire].contains(self)
    }
}

/// One measurement, as asked for on a command line.
public struct Request: ParsableArguments, Sendable {
    @Option(help: ArgumentHelp("What to measure.", valueName: "name"))
    public var subject: Subject

    @Option(help: ArgumentHelp("Whose loop.", valueName: "name"))
    public var contender: String

    @Option(help: "Timers pending.")
    public var pending = 1

    @Option(help: "Threads that call.")
    public var threads = 1

    @Option(help: "Seconds it may take, about.")
    public var seconds = 0.3

    public init() {}

    public func validate() throws {
        guard 0...10_000_000 ~= pending, 1...1000 ~= threads, 0.001...600 ~= seconds else {
            throw ValidationError("--pending, --threads and --seconds have to be within reason.")
        }
    }

    var nanoseconds: UInt64 { UInt64(seconds * 1e9) }
}
