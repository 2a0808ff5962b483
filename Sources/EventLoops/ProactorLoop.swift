// SPDX-License-Identifier: Apache-2.0
//
// ProactorLoop.swift: the loop over completions. Options in, a C loop out.

import CLoopCore

/// An event loop that hands operations to the kernel and is told when they are complete, on io_uring.
///
/// Availability: Linux with io_uring allowed, best from 6.1 on. Ask ``probe()``; the initialiser says why not. Source:
/// asyncio's `ProactorEventLoop`.
public final class ProactorLoop: Loop {
    public let core: LoopCore
    public var uncountedCore: OpaquePointer { core.loop }
    public let selection: LoopSelection
    public let taskExecutor: LoopTaskExecutor
    public let serialExecutor: LoopSerialExecutor

    /// - Throws: `.unavailable` with the cause and what to do; `.io` when descriptors or memory are short.
    public convenience init(options: LoopOptions = LoopOptions()) throws(LoopError) {
        try self.init(
            options: options,
            selection: LoopSelection(kind: .proactor, source: .argument, reason: "ProactorLoop was asked for"))
    }

    init(options: LoopOptions, selection: LoopSelection) throws(LoopError) {
        core = try LoopCore(options: options.core(LC_BACKEND_PROACTOR), operation: "make a proactor loop")
        self.selection = selection
        taskExecutor = LoopTaskExecutor(core)
        serialExecutor = LoopSerialExecutor(core)
        core.adopt(self)
    }

    deinit { core.abandoned() }

    /// Whether this kernel lets this process have a ring, found by making one. Any thread. Asks anew each time.
    public static func probe() -> ProactorAvailability {
        var probe = lc_probe()
        lc_probe_run(&probe)
        return probe.proactor_error == 0
            ? .ok(ProactorFeatures(rawValue: probe.proactor_features))
            : .denied(LoopUnavailability(errno: probe.proactor_error))
    }

    /// The features this loop uses.
    public var features: ProactorFeatures { ProactorFeatures(rawValue: lc_loop_features(core.loop)) }
}
