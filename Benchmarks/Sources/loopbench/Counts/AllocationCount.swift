// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Runs a server with the AllocationCounter library preloaded and reads what it wrote at its end.
struct AllocationCount {
    private let library: String
    private let file = FileManager.default.temporaryDirectory.path + "/loopbench-\(UUID().uuidString).mallocs"

    init() throws {
        library = try Programs.beside("libAllocationCounter.so")
    }

    var environment: [String] { ["LD_PRELOAD=\(library)", "ALLOCATION_COUNTER_FILE=\(file)"] }

    /// The mallocs of the server's whole life. Call after it has ended.
    func read() throws -> Double {
        guard let line = text(ofFile: file), let count = Self.parse(line) else {
            throw BenchmarkFailure("left no allocation counts: it must end by itself on SIGTERM")
        }
        return count
    }

    func discard() {
        try? FileManager.default.removeItem(atPath: file)
    }

    /// `mallocs=12 frees=3`
    static func parse(_ line: String) -> Double? {
        let field = line.split(whereSeparator: \.isWhitespace).first { $0.hasPrefix("mallocs=") }
        return field.flatMap { Double($0.dropFirst("mallocs=".count)) }
    }
}
