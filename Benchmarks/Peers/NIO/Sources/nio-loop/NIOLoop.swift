// SPDX-License-Identifier: Apache-2.0
//
// NIOLoop.swift: the process that measures one thing of a SwiftNIO event loop. `loopbench loop` starts it.

import ArgumentParser
import Glibc
import LoopMeasuring
import NIOCore
import NIOPosix

@main
struct NIOLoop: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nio-loop",
        abstract: "Measures one thing of a SwiftNIO event loop and prints what was found as a line of JSON.",
        discussion: """
            Contenders: nio, by execute, scheduleTask and actors on the loop's executor; nio callback, by \
            scheduleCallback; nio takeover, by tasks with the event loops as the global executor.
            """
    )

    @OptionGroup var request: Request

    func run() throws {
        try measure().printLine()
        // What a measurement left pending is nobody's business any more, and freeing it would take its time.
        fflush(nil)
        _exit(0)
    }

    private func measure() throws -> Figures {
        if request.contender == "nio takeover" { return measureTakeover() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let eventLoop = group.next()
        switch request.contender {
        case "nio callback": return measureCalls(CallbackLoop(eventLoop: eventLoop), request)
        case "nio":
            switch request.subject {
            case .spawn, .awaitResume, .actorCall: return measureTasks(TaskHost(isolatedTo: eventLoop), request)
            default: return measureCalls(TaskLoop(eventLoop: eventLoop), request)
            }
        default: throw ValidationError("SwiftNIO has nothing called \(request.contender).")
        }
    }

    /// Takes the process over, on its main thread and for good.
    private func measureTakeover() -> Figures {
        guard NIOSingletons.unsafeTryInstallSingletonPosixEventLoopGroupAsConcurrencyGlobalExecutor() else {
            return Figures(failure: "this Swift runtime does not let SwiftNIO take over the global executor")
        }
        return measureTasks(.onGlobalExecutor(), request)
    }
}

/// `execute` and `scheduleTask`.
struct TaskLoop: MeasuredLoop {
    let eventLoop: any EventLoop

    func callSoon(_ body: @escaping @Sendable () -> Void) { eventLoop.execute(body) }
    func callThreadsafe(_ body: @escaping @Sendable () -> Void) { eventLoop.execute(body) }

    func schedule(_ counter: FireCounter, at time: UInt64) -> Scheduled<Void> {
        eventLoop.scheduleTask(deadline: .uptimeNanoseconds(time)) { counter.fire() }
    }

    func schedule(_ counter: FireCounter, after nanoseconds: UInt64) -> Scheduled<Void> {
        eventLoop.scheduleTask(in: .nanoseconds(Int64(nanoseconds))) { counter.fire() }
    }

    func cancel(_ timer: Scheduled<Void>) { timer.cancel() }
}

/// `scheduleCallback`: one handler for all of them, as a protocol's state machine would be.
struct CallbackLoop: MeasuredLoop {
    let eventLoop: any EventLoop

    private struct Handler: NIOScheduledCallbackHandler {
        let counter: FireCounter
        func handleScheduledCallback(eventLoop: some EventLoop) { counter.fire() }
    }

    func callSoon(_ body: @escaping @Sendable () -> Void) { eventLoop.execute(body) }
    func callThreadsafe(_ body: @escaping @Sendable () -> Void) { eventLoop.execute(body) }

    func schedule(_ counter: FireCounter, at time: UInt64) -> NIOScheduledCallback {
        try! eventLoop.scheduleCallback(at: .uptimeNanoseconds(time), handler: Handler(counter: counter))
    }

    func schedule(_ counter: FireCounter, after nanoseconds: UInt64) -> NIOScheduledCallback {
        try! eventLoop.scheduleCallback(in: .nanoseconds(Int64(nanoseconds)), handler: Handler(counter: counter))
    }

    func cancel(_ timer: NIOScheduledCallback) { timer.cancel() }
}

extension TaskHost {
    /// Tasks that are isolated to an actor on the loop: SwiftNIO has serial executors, and no task executors.
    init(isolatedTo eventLoop: any EventLoop) {
        let home = ExecutorActor(executor: eventLoop.executor)
        let other = ExecutorActor(executor: eventLoop.executor)
        self.init(
            spawnEmpty: { home.assumeIsolated { $0.spawnEmpty() } },
            spawn: { body in Task { await home.run(body) } },
            callActor: { await other.bump() })
    }

    /// Tasks as they are, and an actor on one of the loops that run them: the one of whoever calls.
    static func onGlobalExecutor() -> TaskHost {
        let actor = ExecutorActor(executor: MultiThreadedEventLoopGroup.singleton.any().executor)
        return TaskHost(
            spawnEmpty: { Task {} },
            spawn: { body in Task { await body() } },
            callActor: { await actor.bump() })
    }
}
