// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Runs servers under callgrind, which counts user-space instructions and calls exactly, on any machine.
///
/// Servers run as copies without debug information, because a valgrind older than the compiler gives up when it meets
/// a form of DWARF it does not know; names of functions stay. The copies live as long as this object.
final class Callgrind {
    private let valgrind: String
    private let objcopy: String?
    private let directory = FileManager.default.temporaryDirectory.path + "/loopbench-\(UUID().uuidString)"
    private var stripped: [String: String] = [:]

    /// nil where valgrind is not installed.
    init?() {
        guard let valgrind = Programs.inPath("valgrind") else { return nil }
        self.valgrind = valgrind
        objcopy = Programs.inPath("objcopy") ?? Programs.inPath("llvm-objcopy")
    }

    deinit {
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// One life of a server.
    struct Life {
        let command: [String]
        let file: String

        /// Call after the server has ended by itself.
        func read() throws -> CallgrindProfile {
            guard let text = text(ofFile: file), !text.isEmpty else {
                throw BenchmarkFailure(
                    "left no profile: it must end by itself, and valgrind must know its system calls")
            }
            return CallgrindParser.parse(text)
        }

        func discard() {
            try? FileManager.default.removeItem(atPath: file)
        }
    }

    /// - Parameter file: Where the profile goes; nil for a place that is forgotten.
    func life(of command: [String], keeping file: String?) throws -> Life {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let file = file ?? directory + "/\(UUID().uuidString).callgrind"
        // Line numbers are of no use without debug information.
        let flags = ["--tool=callgrind", "--dump-line=no", "--callgrind-out-file=\(file)"]
        return Life(command: [valgrind] + flags + [try copy(of: command[0])] + command.dropFirst(), file: file)
    }

    private func copy(of program: String) throws -> String {
        if let copy = stripped[program] { return copy }
        guard let objcopy else { return program }
        let copy = directory + "/" + (program.split(separator: "/").last.map(String.init) ?? "server")
        try Programs.run([objcopy, "--strip-debug", program, copy])
        stripped[program] = copy
        return copy
    }
}
