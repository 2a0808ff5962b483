// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `loopbench report`: a page from what was measured before.
struct DrawReport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Draws a page with plots from JSON that other commands wrote.",
        discussion: """
            Takes what --json of run, counts, grow and loop wrote, and results.json of an earlier report. Needs Python \
            with matplotlib (apt-get install python3-matplotlib); ends with 69 where it is missing.
            """)

    @Option(
        name: .customLong("from"), parsing: .upToNextOption,
        help: ArgumentHelp("JSON to read; several files make one page.", valueName: "file"))
    var files: [String]

    @Option(help: ArgumentHelp("Where to put index.html, the plots and results.json.", valueName: "folder"))
    var into: String

    func run() throws {
        guard let renderer = try Renderer() else { throw Renderer.unavailable }
        try renderer.draw(files, into: into)
    }
}
