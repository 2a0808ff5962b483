// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Serves TCP echo on one of the loops.")

    func run() throws {
        print("not built yet")
        throw ExitCode.failure
    }
}
