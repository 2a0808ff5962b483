// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Glibc

/// Draws a report from JSON. The drawing is a Python program, which the build puts beside this executable, because
/// matplotlib draws better than we would.
struct Renderer {
    /// sysexits.h: what the report needs is not installed.
    static let unavailable = ExitCode(69)

    let python: String
    let script: String

    /// nil, with a sentence on standard error, where no Python with matplotlib can be found.
    init?() throws {
        script = try Programs.beside("Benchmarks_loopbench.resources/Renderer/render.py")
        guard let python = Self.pythons.first(where: Self.hasMatplotlib) else {
            printToStandardError(
                "no page and no plots: matplotlib is missing from \(Self.pythons.joined(separator: ", ")). "
                    + "apt-get install python3-matplotlib, or set LOOPBENCH_PYTHON to a Python that has it")
            return nil
        }
        self.python = python
    }

    /// - Throws: An exit code when the program failed; it has said why.
    func draw(_ files: [String], into folder: String) throws {
        // -B: no byte code into the build folder, which may belong to somebody else.
        let status = try Command.run([python, "-B", script, "--into", folder] + files)
        guard status == 0 else { throw ExitCode(status) }
        print("report: \(folder)/index.html")
    }

    /// The one asked for; else the first in PATH, and the distribution's, whose packages the other may not see.
    private static var pythons: [String] {
        if let chosen = getenv("LOOPBENCH_PYTHON") { return [String(cString: chosen)] }
        let found = [Programs.inPath("python3"), "/usr/bin/python3"].compactMap { $0 }
        return found.first == found.last ? [found[0]] : found
    }

    private static func hasMatplotlib(_ python: String) -> Bool {
        (try? Command.output(of: [python, "-c", "import matplotlib"])) != nil
    }
}
