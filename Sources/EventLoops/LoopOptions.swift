// SPDX-License-Identifier: Apache-2.0
//
// LoopOptions.swift: sizes a loop is made with. The defaults fit servers; change them with a measurement in hand.

import CLoopCore

/// Sizes of a loop's queues and buffers. Zero means the default. More entries or buffers than the kernel has room for
/// mean as many as it has; more memory than there is makes the loop's initialiser throw.
public struct LoopOptions: Sendable, Hashable {
    /// Receive buffers of the loop; rounded up to a power of two, at most 32768.
    public var bufferCount: UInt32 = 0
    /// Bytes per receive buffer: the most that one read returns.
    public var bufferSize: UInt32 = 0
    /// Completions or events taken per pass.
    public var eventsPerPass: UInt32 = 0
    /// Connections that a listener hands out in one pass, and those it accepts ahead of whoever accepts them; 64 by
    /// default. The kernel's own queue is ``ListenOptions/backlog``.
    public var acceptBatch: UInt32 = 0
    /// Entries of the submission queue, at most 32768. ``ProactorLoop`` alone.
    public var submissionEntries: UInt32 = 0
    /// Entries of the completion queue, at most 65536. ``ProactorLoop`` alone.
    public var completionEntries: UInt32 = 0
    /// Features not to use although the kernel has them. ``ProactorLoop`` alone.
    public var withoutFeatures: ProactorFeatures = []
    /// Which selector to use. ``SelectorLoop`` alone.
    public var selector: Selector = .mostEfficient

    /// The mechanisms a ``SelectorLoop`` can wait with.
    public enum Selector: UInt32, Sendable, Hashable {
        /// The first of the others that can really be made here.
        case mostEfficient = 0
        case epoll = 1
        case poll = 2
        case select = 3
    }

    public init() {}

    /// As small as can be, so that full queues and empty groups are the ordinary case. For tests.
    public static var tiny: LoopOptions {
        var options = LoopOptions()
        options.bufferCount = 1
        options.bufferSize = 64
        options.eventsPerPass = 1
        options.acceptBatch = 1
        options.submissionEntries = 2
        options.completionEntries = 4
        return options
    }

    func core(_ backend: lc_backend) -> lc_options {
        lc_options(
            backend: backend.rawValue, selector: selector.rawValue, submission_count: submissionEntries,
            completion_count: completionEntries, buffer_count: bufferCount, buffer_size: bufferSize,
            reap_batch_max: eventsPerPass, accept_batch_max: acceptBatch, features_off: withoutFeatures.rawValue)
    }
}
