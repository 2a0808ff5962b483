// SPDX-License-Identifier: Apache-2.0
//
// SelectorLoop.swift: the loop over readiness. Options in, a C loop out.

import CLoopCore

/// An event loop that asks the kernel which descriptors are ready, on libev.
///
/// It uses the most efficient selector that can really be made here, and can be told another. The environment does not
/// change that choice. Source: asyncio's `SelectorEventLoop`.
public final class SelectorLoop: Loop {
    public let core: LoopCore
    public var uncountedCore: OpaquePointer { core.loop }
    public let selection: LoopSelection
    public let taskExecutor: LoopTaskExecutor
    public let serialExecutor: LoopSerialExecutor

    /// - Throws: `.io` when descriptors or memory are short, or when the selector asked for cannot be made.
    public convenience init(options: LoopOptions = LoopOptions()) throws(LoopError) {
        try self.init(
            options: options,
            selection: LoopSelection(kind: .selector, source: .argument, reason: "SelectorLoop was asked for"))
    }

    init(options: LoopOptions, selection: LoopSelection) throws(LoopError) {
        core = try LoopCore(options: options.core(LC_BACKEND_SELECTOR), operation: "make a selector loop")
        self.selection = selection
        taskExecutor = LoopTaskExecutor(core)
        serialExecutor = LoopSerialExecutor(core)
        core.adopt(self)
    }

    deinit { core.abandoned() }
}
