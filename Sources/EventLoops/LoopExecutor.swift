// SPDX-License-Identifier: Apache-2.0
//
// LoopExecutor.swift: a loop as an executor: tasks and actors on its thread, nothing allocated per enqueue.
//
// Two small objects rather than one that is both: a type that is a serial and a task executor at once costs the runtime
// extra work on each switch.

import CLoopCore
import Dispatch

/// Runs tasks on a loop's thread.
public final class LoopTaskExecutor: TaskExecutor {
    let core: LoopCore
    init(_ core: LoopCore) { self.core = core }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if lc_loop_enqueue_job(core.loop, job.record, LC_KIND_JOB_TASK) < 0 { runOrphan(job) }
    }

    func runOrphan(_ job: UnownedJob) {
        orphans.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}

/// Isolates actors to a loop's thread.
public final class LoopSerialExecutor: SerialExecutor {
    let core: LoopCore
    init(_ core: LoopCore) { self.core = core }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if lc_loop_enqueue_job(core.loop, job.record, LC_KIND_JOB_SERIAL) < 0 { runOrphan(job) }
    }

    func runOrphan(_ job: UnownedJob) {
        orphans.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }

    public func isIsolatingCurrentContext() -> Bool? { core.isOnLoop }

    public func checkIsolated() {
        precondition(core.isOnLoop, "This code must run on its loop's thread.")
    }
}

/// Where the tasks of closed loops come to their end. Their loop will not run again, but they must not hang: whatever
/// they ask of it throws `.closed`. One queue keeps actors serial.
private let orphans = DispatchQueue(label: "swift-event-loops.orphans")

extension UnownedJob {
    /// The job's record, whose two words for executors CLoopCore links.
    var record: UnsafeMutableRawPointer { unsafeBitCast(self, to: UnsafeMutableRawPointer.self) }
    init(record: UnsafeMutableRawPointer) { self = unsafeBitCast(record, to: UnownedJob.self) }
}
