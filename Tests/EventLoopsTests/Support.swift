// SPDX-License-Identifier: Apache-2.0
//
// Support.swift: what every test file uses: the kinds of loop that can be had here, and threads to run them on.

import CSimulator
import Dispatch
import TestSupportC
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension LoopOptions {
    /// The defaults; with `LOOP_TINY=1` in the environment, ``tiny``.
    static let forTests: LoopOptions = getenv("LOOP_TINY").map { String(cString: $0) } == "1" ? .tiny : LoopOptions()
}

/// Whether this process is on the simulated kernel: `LOOP_KERNEL=simulated`.
let isSimulated = sim_is_process_wide()

extension Trait where Self == ConditionTrait {
    /// For tests that need what the simulated kernel does not have.
    static func realKernel(_ why: String) -> Self {
        .enabled(if: !isSimulated, "needs the real kernel: \(why)")
    }
}

extension LoopKind {
    /// The kinds that can be had here. What is missing is said once, with the reason, on standard error.
    static let available: [LoopKind] = {
        guard case .denied(let unavailability) = ProactorLoop.probe() else { return LoopKind.allCases }
        var line = "SKIPPED: every test on ProactorLoop. \(unavailability)\n"
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
        return [.selector]
    }()

    /// Makes a loop of this kind, of tiny sizes if `LOOP_TINY=1`. Close it: `defer { try? loop.close() }`.
    func makeLoop(options: LoopOptions = .forTests) throws -> any Loop {
        switch self {
        case .selector: try SelectorLoop(options: options)
        case .proactor: try ProactorLoop(options: options)
        }
    }

    /// The choice that makes ``Loops/run(on:options:_:)`` make a loop of this kind.
    var choice: LoopChoice { self == .selector ? .selector : .proactor }
}

/// Runs `body` on a thread of its own, which ends with it: loops block the thread that runs them, and the threads that
/// tests run on are few. Expectations in `body`, and in tasks and callbacks of loops it runs, belong to the test.
func onThread<Success>(_ body: () throws -> Success) async throws -> Success {
    let thread = ThreadExecutor()
    defer { thread.end() }
    return try await withTaskExecutorPreference(thread) { try body() }
}

/// One thread that runs jobs until it is told to end.
private final class ThreadExecutor: TaskExecutor {
    private let jobs = Lock<[UnownedJob]>([])
    /// Counts jobs, and the wish to end as one more.
    private let arrivals = DispatchSemaphore(value: 0)

    init() {
        startThread { [self] in
            while true {
                arrivals.wait()
                guard let job = jobs.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) else { return }
                job.runSynchronously(on: asUnownedTaskExecutor())
            }
        }
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        arrivals.signal()
    }

    func end() { arrivals.signal() }
}

/// Runs `body` on a thread of its own, and waits until that has ended and freed what belonged to it. Blocks: call it
/// within ``onThread(_:)``. `body` is not part of the test: let it return what is to be looked at.
func onJoinedThread<Success: Sendable>(
    named name: String = "joined", _ body: @escaping @Sendable () throws -> Success
) throws -> Success {
    var result: Result<Success, any Error>?
    let work = Work { result = Result { try body() } }
    let status = test_thread_run(
        name,
        {
            Unmanaged<Work>.fromOpaque($0!).takeUnretainedValue().body()
            return 0
        }, Unmanaged.passUnretained(work).toOpaque())
    precondition(status == 0, "No thread could be made (errno \(-status)).")
    return try withExtendedLifetime(work) { try result!.get() }
}

private final class Work {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}

private func startThread(_ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    let result = pthread_create(
        &thread, nil,
        {
            Unmanaged<Work>.fromOpaque($0!).takeRetainedValue().body()
            return nil
        }, Unmanaged.passRetained(Work(body)).toOpaque())
    precondition(result == 0, "No thread could be made (errno \(result)).")
    pthread_detach(thread)
}
