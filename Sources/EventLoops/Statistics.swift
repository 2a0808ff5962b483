// SPDX-License-Identifier: Apache-2.0
//
// Statistics.swift: a loop's counters.

import CLoopCore

/// Counters of a loop, since it was made.
public struct LoopStatistics: Sendable, Hashable {
    /// Passes.
    public let passes: UInt64
    /// System calls made to submit or to wait.
    public let kernelEntries: UInt64
    /// Completions or readiness events taken.
    public let completions: UInt64
    /// Callbacks, jobs, timers and I/O results handed out.
    public let delivered: UInt64
    /// Times another thread woke the loop from its sleep.
    public let wakes: UInt64
    /// Receives that found no buffer and waited for one.
    public let starvedReceives: UInt64
    /// Receives whose bytes were copied out because few buffers were left.
    public let copiedReceives: UInt64
    /// Completion queue overflows.
    public let overflows: UInt64
    /// Operations that waited a pass for room in the submission queue.
    public let queueFull: UInt64
    /// Accepts that paused for want of descriptors or memory.
    public let acceptPauses: UInt64

    /// Operations to be submitted, now.
    public let queuedOperations: Int
    /// Operations the kernel holds, now.
    public let operationsInKernel: Int
    /// Operations that wait for readiness, now.
    public let armedOperations: Int
    /// Buffers in users' and connections' hands, now.
    public let leasedBuffers: Int
    /// Timers set, now.
    public let timers: Int
    /// Connections, now.
    public let connections: Int

    init(_ loop: OpaquePointer) {
        var stats = lc_stats()
        lc_loop_stats(loop, &stats)
        passes = stats.ticks
        kernelEntries = stats.enters
        completions = stats.completions
        delivered = stats.delivered
        wakes = stats.wakes
        starvedReceives = stats.starved
        copiedReceives = stats.copied_out
        overflows = stats.overflows
        queueFull = stats.queue_full
        acceptPauses = stats.accept_backoffs
        queuedOperations = Int(stats.queued)
        operationsInKernel = Int(stats.in_kernel)
        armedOperations = Int(stats.armed)
        leasedBuffers = Int(stats.leased)
        timers = Int(stats.timers)
        connections = Int(stats.streams)
    }
}
