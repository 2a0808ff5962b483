// SPDX-License-Identifier: Apache-2.0
//
// LoopWorker.swift: the process that measures one thing of one of our loops, or of Swift's global executor.

import ArgumentParser
import EventLoops
import Glibc
import LoopMeasuring

/// `loopbench loop-worker`: what `loopbench loop` starts for each measurement, as it starts `nio-loop` for the peer's.
struct LoopWorker: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loop-worker",
        abstract: "Measures one thing of one loop and prints what was found as a line of JSON.",
        shouldDisplay: false
    )

    @OptionGroup var request: Request

    func run() throws {
        try measure().printLine()
        // What a measurement left pending is nobody's business any more, and freeing it would take its time.
        fflush(nil)
        _exit(0)
    }

    private func measure() throws -> Figures {
        if request.contender == LoopContender.globalExecutor.rawValue { return measureGlobalExecutor(request) }
        guard let loop = try Self.makeLoop(request.contender) else {
            throw ValidationError("loopbench has no loop called \(request.contender).")
        }
        return measureLoop(loop, request)
    }

    private static func makeLoop(_ name: String) throws -> (any Loop)? {
        switch LoopContender(rawValue: name) {
        case .selector: try SelectorLoop()
        case .proactor: try ProactorLoop()
        default: nil
        }
    }
}

/// Measures with the loop running on a thread of its own.
func measureLoop(_ loop: any Loop, _ request: Request) -> Figures {
    let thread = JoinedThread { try! loop.run() }
    defer {
        loop.stop()
        thread.join()
    }
    let measured = OwnLoop(loop: loop)
    switch request.subject {
    case .spawn, .awaitResume, .actorCall: return measureTasks(TaskHost(loop), request)
    case .sleep:
        let handed = Handed<Figures>()
        loop.spawn { handed.set(await measureSleeps(request) { try await loop.sleep(for: .microseconds(500)) }) }
        return handed.wait()
    case .idle:
        let before = measured.passes()
        var figures = measureCalls(measured, request)
        // One of them is the pass that looks.
        figures.passes = measured.passes() - before - 2
        return figures
    default: return measureCalls(measured, request)
    }
}

/// The measurements' calls as ours.
struct OwnLoop: MeasuredLoop {
    let loop: any Loop

    func callSoon(_ body: @escaping @Sendable () -> Void) { try! loop.callSoon(body) }
    func callThreadsafe(_ body: @escaping @Sendable () -> Void) { try! loop.callSoonThreadsafe(body) }

    func schedule(_ counter: FireCounter, at time: UInt64) -> Handle {
        try! loop.callAt(LoopInstant(nanoseconds: time)) { counter.fire() }
    }

    func schedule(_ counter: FireCounter, after nanoseconds: UInt64) -> Handle {
        try! loop.callLater(.nanoseconds(nanoseconds)) { counter.fire() }
    }

    func cancel(_ timer: Handle) { timer.cancel() }

    /// The passes so far, seen from a callback.
    func passes() -> Int {
        let handed = Handed<UInt64>()
        callThreadsafe { handed.set(loop.statistics.passes) }
        return Int(handed.wait())
    }
}

extension TaskHost {
    /// Tasks of a loop, and an actor of it.
    init(_ loop: any Loop) {
        let actor = ExecutorActor(executor: loop.serialExecutor)
        self.init(
            spawnEmpty: { loop.spawn {} },
            spawn: { body in loop.spawn { await body() } },
            callActor: { await actor.bump() })
    }
}

/// The same with what Swift comes with: its pool of threads, and an actor without an executor of its own.
func measureGlobalExecutor(_ request: Request) -> Figures {
    let actor = DefaultActor()
    let host = TaskHost(
        spawnEmpty: { Task {} },
        spawn: { body in Task { await body() } },
        callActor: { await actor.bump() })
    guard request.subject == .sleep else { return measureTasks(host, request) }
    let handed = Handed<Figures>()
    Task.detached { handed.set(await measureSleeps(request) { try await Task.sleep(for: .microseconds(500)) }) }
    return handed.wait()
}
