// SPDX-License-Identifier: Apache-2.0

import EventLoops
import LoopMeasuring
import Testing

@testable import loopbench

/// `loopbench loop`, every measurement for a moment: that it ends, and finds what it should.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct LoopTests {
    private func request(_ subject: Subject, _ contender: LoopContender, pending: Int = 10) throws -> Request {
        try Request.parse([
            "--subject", subject.rawValue, "--contender", contender.rawValue, "--pending", "\(pending)",
            "--threads", "2", "--seconds", "0.005",
        ])
    }

    /// nil where io_uring cannot be had, which is said instead of passing quietly.
    private func makeLoop(_ contender: LoopContender) throws -> (any Loop)? {
        guard contender == .proactor else { return try SelectorLoop() }
        guard case .denied(let why) = ProactorLoop.probe() else { return try ProactorLoop() }
        print("SKIPPED proactor: \(why)")
        return nil
    }

    @Test(arguments: Subject.allCases, LoopContender.ours)
    func everythingOfOurLoops(_ subject: Subject, _ contender: LoopContender) throws {
        guard let loop = try makeLoop(contender) else { return }
        let figures = measureLoop(loop, try request(subject, contender))
        #expect(loop.isClosed)
        #expect(figures.failure == nil)
        if subject == .idle {
            #expect(figures.passes == 0)
            #expect(figures.voluntarySwitches == 0)
        } else {
            #expect(figures.operations > 0)
            #expect(figures.nanosecondsPerOperation ?? -1 >= 0)
        }
        if subject == .sleep { #expect(figures.nanosecondsMin ?? -1 >= 0, "a sleep is never too short") }
    }

    @Test(arguments: [Subject.spawn, .awaitResume, .actorCall, .sleep])
    func tasksOfTheGlobalExecutor(_ subject: Subject) throws {
        let figures = measureGlobalExecutor(try request(subject, .globalExecutor))
        #expect(figures.failure == nil)
        #expect(figures.operations > 0)
    }

    /// Processes of their own, with the counting library and without.
    @Test func timersAndCallsCostNoMalloc() throws {
        let configurations = [
            LoopConfiguration(subject: .timerPair, pending: 100), LoopConfiguration(subject: .callSoon),
            LoopConfiguration(subject: .callThreadsafe, threads: 2),
        ]
        let schedule = LoopSchedule(
            configurations: configurations, contenders: [.selector], rounds: 1, seconds: 0.01, plan: .available())
        let samples = schedule.run()
        #expect(samples.count == configurations.count)
        for sample in samples {
            #expect(sample.failure == nil)
            #expect(try #require(sample.mallocsPerOperation) < 0.1, "\(sample.subject)")
            #expect(sample.eventfdWritesPerOperation != nil)
        }
        let lines = LoopReport(samples: samples).lines()
        #expect(lines.contains("timer schedule+cancel"))
        #expect(lines.filter { $0.hasPrefix("selector") }.count == samples.count)
    }

    @Test func whoCannotTakePartIsNamed() throws {
        let figures = Figures(failure: "is not here")
        let sample = LoopSample(
            LoopConfiguration(subject: .callSoon), .nio, round: 1, figures, counted: Figures())
        #expect(LoopReport(samples: [sample]).lines().last == "nio: not measured, 1 times: is not here")
    }

    @Test func figuresTravelAsALine() throws {
        #expect(try Figures(line: #"{"operations":3,"nanosecondsPerOperation":1.5}"#).nanosecondsPerOperation == 1.5)
        #expect(throws: (any Error).self) { try Figures(line: "nothing") }
    }
}
