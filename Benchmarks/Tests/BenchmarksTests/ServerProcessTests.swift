// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

/// A server that does not come up is reported in its own words, and nothing waits for it.
@Suite(.timeLimit(.minutes(5)))
struct ServerProcessTests {
    @Test func programThatCannotBeExecuted() {
        expectFailure(of: ["/nowhere/server"], mentions: "/nowhere/server: No such file or directory")
    }

    @Test func programThatEndsWithAComplaint() {
        expectFailure(of: ["/bin/sh", "-c", "echo io_uring is off >&2; exit 1"], mentions: "io_uring is off")
    }

    @Test func programThatSaysSomethingElse() {
        expectFailure(of: ["/bin/sh", "-c", "echo hello"], mentions: "hello")
    }

    /// What we add to the environment replaces what was there under the same name.
    @Test func environmentIsAddedTo() throws {
        let command = ["/bin/sh", "-c", "echo \"listening on $PATH:$PORT\"; exec /bin/sleep 60"]
        let server = try ServerProcess(command: command, cpu: nil, environment: ["PATH=/bin", "PORT=4711"])
        #expect(server.port == 4711)
        #expect(!server.stop(), "sleep is ended by the signal, it does not exit by itself")
    }

    private func expectFailure(of command: [String], mentions words: String) {
        #expect {
            try ServerProcess(command: command, cpu: nil)
        } throws: {
            "\($0)".contains(words)
        }
    }
}
