// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A program that is run to its end; servers, which end when they are told to, are ``ServerProcess``.
enum Command {
    /// Runs `command`; what it says goes where ours goes.
    /// - Returns: Its exit status.
    static func run(_ command: [String]) throws -> Int32 {
        let process = try start(command) { _ in }
        process.waitUntilExit()
        return process.terminationStatus
    }

    /// What `command` prints, without the last line's end. Its complaints go nowhere.
    /// - Throws: ``BenchmarkFailure`` when it ends with another status than 0.
    static func output(of command: [String]) throws -> String {
        let pipe = Pipe()
        let process = try start(command) {
            $0.standardOutput = pipe
            $0.standardError = FileHandle.nullDevice
        }
        let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw BenchmarkFailure("\(command[0]) ended with status \(process.terminationStatus)")
        }
        let text = String(decoding: output, as: UTF8.self)
        return text.last?.isNewline == true ? String(text.dropLast()) : text
    }

    private static func start(_ command: [String], _ configure: (Process) -> Void) throws -> Process {
        let process = Process()
        process.executableURL = URL(filePath: command[0])
        process.arguments = Array(command.dropFirst())
        process.standardInput = FileHandle.nullDevice
        configure(process)
        do { try process.run() } catch { throw BenchmarkFailure("cannot start \(command[0]): \(error)") }
        return process
    }
}
