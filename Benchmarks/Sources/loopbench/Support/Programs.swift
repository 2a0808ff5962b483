// SPDX-License-Identifier: Apache-2.0

import ChildProcess
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

    /// The nearest folder of this name in one of the folders above this executable, or nil.
    static func folderAbove(_ name: String) throws -> String? {
        var path = try directory()
        while let slash = path.lastIndex(of: "/") {
            let candidate = "\(path)/\(name)"
            if access(candidate + "/.", R_OK) == 0 { return candidate }
            path = String(path[..<slash])
        }
        return nil
    }

    /// Where a program of this name is in PATH, or nil.
    static func inPath(_ name: String) -> String? {
        guard let list = getenv("PATH") else { return nil }
        return String(cString: list).split(separator: ":")
            .map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    /// Runs a short helper to its end.
    /// - Throws: ``BenchmarkFailure`` with what it said when it did not end well within a minute.
    static func run(_ command: [String]) throws {
        var process = child()
        let started = withCStrings(command) { arguments in
            withCStrings([]) { child_start(&process, arguments, $0, -1) }
        }
        guard started == 0 else {
            throw BenchmarkFailure("cannot start \(command[0]): \(String(cString: strerror(-started)))")
        }
        defer { child_close(&process) }
        let ended = child_await_end(&process, 60_000) == 1
        let status = child_stop(&process, 0)
        guard ended, status == 0 else {
            throw BenchmarkFailure("\(command[0]) failed: \(ServerProcess.words(from: process.errors))")
        }
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
