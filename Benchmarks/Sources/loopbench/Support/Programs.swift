// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Finds what the build put next to this executable, so a benchmark never runs yesterday's server from elsewhere.
enum Programs {
    static func beside(_ name: String) throws -> String {
        let path = try directory() + "/" + name
        guard access(path, R_OK) == 0 else {
            throw BenchmarkFailure("\(path) is missing: build the whole package with `swift build -c release`")
        }
        return path
    }

    /// Where a program of this name is in PATH, or nil.
    static func inPath(_ name: String) -> String? {
        guard let list = getenv("PATH") else { return nil }
        return String(cString: list).split(separator: ":")
            .map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    static func isExecutable(_ path: String) -> Bool { access(path, X_OK) == 0 }

    /// Where this executable is.
    static func directory() throws -> String {
        guard let resolved = realpath("/proc/self/exe", nil) else {
            throw BenchmarkFailure("cannot find this executable: \(String(cString: strerror(errno)))")
        }
        defer { free(resolved) }
        return String(cString: resolved).split(separator: "/", omittingEmptySubsequences: false)
            .dropLast().joined(separator: "/")
    }
}
