// SPDX-License-Identifier: Apache-2.0
//
// Supervisor.swift: keeps commands running. One that ends is started again, after a pause that grows while it ends soon.
// SIGTERM and SIGINT end them all: politely, and after two seconds without asking.
//
//     supervisor 'command line' 'command line' ...

import EventLoops
import Glibc

@main
enum Supervisor {
    static func main() throws {
        let lines = CommandLine.arguments.dropFirst()
        guard !lines.isEmpty else { return print("usage: supervisor 'command line' ...") }
        try Loops.run { loop in
            let signals = try loop.signals(SIGTERM, SIGINT)
            let keepers = lines.map { line in loop.spawn { await keep(line, loop) } }
            for try await _ in signals { break }
            for keeper in keepers { keeper.cancel() }
            for keeper in keepers { try await keeper.value }
        }
    }

    nonisolated(nonsending) static func keep(_ line: String, _ loop: any Loop) async {
        let shortest = Duration.milliseconds(50)
        var pause = shortest
        while !Task.isCancelled {
            let begin = loop.now
            do {
                let exit = try await run(line, loop)
                say("\(exit): \(line)")
            } catch {
                say("\(error): \(line)")
            }
            pause = loop.now > begin.advanced(by: .seconds(10)) ? shortest : min(pause * 2, .seconds(10))
            try? await loop.sleep(for: pause)  // a cancel ends the pause, and the loop above
        }
    }

    /// Runs the command to its end. A cancel asks it to end, and waits for that.
    nonisolated(nonsending) static func run(_ line: String, _ loop: any Loop) async throws -> ChildExit {
        let child = try loop.spawn(.shell("exec " + line))
        let end = loop.spawn { try await child.wait() }
        do {
            return try await child.wait()
        } catch LoopError.cancelled {
            try child.terminate()
            let patience = try loop.callLater(.seconds(2)) { try child.kill() }
            defer { patience.cancel() }
            return try await end.value
        }
    }

    /// On standard error: standard output is the commands'.
    static func say(_ text: String) {
        var line = "supervisor: \(text)\n"
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
