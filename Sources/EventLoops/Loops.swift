// SPDX-License-Identifier: Apache-2.0
//
// Loops.swift: shortcuts: the current loop, the running one, a new one, and a loop for the length of a program.

import CLoopCore

/// The functions most programs need. They ask the process's policy, anew on each call.
public enum Loops {
    /// The loop that runs on this thread, if any.
    public static var running: (any Loop)? { LoopCore.current?.facadeLoop }

    /// The loop that runs on this thread.
    /// - Throws: `.noRunningLoop`.
    public static func requireRunning() throws(LoopError) -> any Loop {
        guard let loop = running else { throw .noRunningLoop }
        return loop
    }
}
