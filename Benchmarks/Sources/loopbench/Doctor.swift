// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Says what this machine offers the loops, and why not.")

    func run() throws {
        print("not built yet")
        throw ExitCode.failure
    }
}
