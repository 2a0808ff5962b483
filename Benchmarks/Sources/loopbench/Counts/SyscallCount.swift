// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Glibc

/// Runs a server under strace and reads its summary.
struct SyscallCount {
    private static let summaryMillisecondsMax = 5_000
    private let strace: String
    private let file = FileManager.default.temporaryDirectory.path + "/loopbench-\(UUID().uuidString).strace"

    /// nil where strace is not installed.
    init?() {
        guard let strace = Programs.inPath("strace") else { return nil }
        self.strace = strace
    }

    /// With -D the process we start is the server itself and strace its grandchild, so that signals, CPU time and
    /// the listening line are the server's.
    func wrap(_ command: [String]) -> [String] {
        [strace, "-D", "-f", "-c", "-o", file] + command
    }

    /// Calls by name over the server's whole life. Call after it has ended.
    func read() throws -> [String: Double] {
        // strace outlives the server by a moment; the total is the last line it writes.
        for _ in 0..<(Self.summaryMillisecondsMax / 10) {
            if let summary = text(ofFile: file), summary.hasSuffix("total\n") { return Self.parse(summary) }
            usleep(10_000)
        }
        throw BenchmarkFailure("strace left no summary: may it trace here?")
    }

    func discard() {
        try? FileManager.default.removeItem(atPath: file)
    }

    /// Rows are `share seconds us/call calls [errors] name` between two rules of dashes.
    static func parse(_ summary: String) -> [String: Double] {
        var counts: [String: Double] = [:]
        for line in summary.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count >= 5, let calls = Double(fields[3]), let name = fields.last, name != "total" else {
                continue
            }
            counts[String(name), default: 0] += calls
        }
        return counts
    }
}
