// SPDX-License-Identifier: Apache-2.0

import ChildProcess
import Glibc

/// A program that does one thing, says what came of it in one line, and ends.
enum LineProcess {
    private static let graceMilliseconds: Int32 = 3_000

    /// - Parameter cpu: Where it stays; nil leaves the choice to the scheduler.
    /// - Throws: ``BenchmarkFailure`` with what the process said on standard error.
    static func run(_ command: [String], cpu: Int32?, environment: [String] = [], secondsMax: Int) throws -> String {
        var process = child()
        let started = withCStrings(command) { arguments in
            withCStrings(environment) { child_start(&process, arguments, $0, cpu ?? -1) }
        }
        guard started == 0 else {
            throw BenchmarkFailure("cannot start \(command[0]): \(String(cString: strerror(-started)))")
        }
        defer { child_close(&process) }
        var line = [CChar](repeating: 0, count: 4096)
        let length = child_read_line(process.output, &line, line.count, Int32(secondsMax) * 1000)
        child_stop(&process, graceMilliseconds)
        guard length >= 0 else {
            var words = [CChar](repeating: 0, count: 1024)
            let saidCount = child_read_errors(process.errors, &words, words.count)
            let said = text(words.prefix(saidCount).prefix(240))
            let why = length == -ETIMEDOUT ? "took longer than \(secondsMax) s" : "ended without a result"
            throw BenchmarkFailure(said.isEmpty ? why : "\(why): \(said)")
        }
        return text(line.prefix(Int(length)))
    }

    private static func text(_ bytes: ArraySlice<CChar>) -> String {
        String(decoding: bytes.map(UInt8.init(bitPattern:)), as: UTF8.self)
            .split(whereSeparator: \.isNewline).joined(separator: " ")
    }
}
