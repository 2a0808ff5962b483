// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// The project's bench: measures both loops against plain C floors, and serves the echo protocol they are measured by.
@main
struct Loopbench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loopbench",
        abstract: "Measures the selector and proactor loops against two plain C floors.",
        discussion: """
            A floor is the least a server can do on the same kernel interface: libev for the selector, io_uring for \
            the proactor. What is left between a loop and its floor is what the library costs.
            """,
        version: "0.1.0",
        subcommands: [
            Run.self, Compare.self, Serve.self, Doctor.self, Counts.self, Grow.self, MeasureLoops.self, LoopWorker.self,
            Peers.self, DrawReport.self,
        ]
    )
}
