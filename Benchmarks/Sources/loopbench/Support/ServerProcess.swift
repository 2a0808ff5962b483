// SPDX-License-Identifier: Apache-2.0

import ChildProcess
import Glibc

/// A contender's process, from its `listening on` line until it has ended.
///
/// Every wait is bounded, and a forgotten process ends with this object or, at the latest, with this program.
final class ServerProcess {
    /// A server under valgrind starts thirty times as slowly as others.
    private static let startMillisecondsMax: Int32 = 30_000
    private static let graceMilliseconds: Int32 = 3_000

    private var process: child
    let port: UInt16
    var identifier: Int32 { process.pid }

    /// Starts `command` and waits until it listens.
    /// - Parameter cpu: Where it stays; nil leaves the choice to the scheduler.
    /// - Parameter environment: `NAME=value` strings added to ours.
    /// - Throws: ``BenchmarkFailure`` with what the process said on standard error.
    init(command: [String], cpu: Int32?, environment: [String] = []) throws {
        var process = child()
        let started = withCStrings(command) { arguments in
            withCStrings(environment) { child_start(&process, arguments, $0, cpu ?? -1) }
        }
        guard started == 0 else {
            throw BenchmarkFailure("cannot start \(command[0]): \(String(cString: strerror(-started)))")
        }
        do {
            port = try Self.port(announcedOn: process.output)
        } catch {
            child_stop(&process, Self.graceMilliseconds)
            let words = Self.words(from: process.errors)
            child_close(&process)
            throw BenchmarkFailure("\(error)" + (words.isEmpty ? "" : ": \(words)"))
        }
        self.process = process
    }

    deinit {
        stop()
        child_close(&process)
    }

    /// Waits until it has ended by itself.
    /// - Returns: Whether it did within `milliseconds`; ``stop()`` is needed in both cases.
    func awaitEnd(milliseconds: Int32) -> Bool {
        child_await_end(&process, milliseconds) == 1
    }

    /// Asks it to end, insists after three seconds.
    /// - Returns: Whether it ended by itself with status 0. Asking again says true.
    @discardableResult
    func stop() -> Bool {
        child_stop(&process, Self.graceMilliseconds) == 0
    }

    /// What it has printed since its `listening on` line, once it has ended.
    func remainingLines() -> [String] {
        var lines: [String] = []
        var line = [CChar](repeating: 0, count: 512)
        while true {
            let length = child_read_line(process.output, &line, line.count, 0)
            guard length >= 0 else { return lines }
            lines.append(Self.text(line.prefix(Int(length))))
        }
    }

    /// What the process has said on standard error so far, on one line.
    var complaints: String { Self.words(from: process.errors) }

    private static func port(announcedOn output: Int32) throws -> UInt16 {
        var line = [CChar](repeating: 0, count: 256)
        let length = child_read_line(output, &line, line.count, startMillisecondsMax)
        if length == -EPIPE { throw BenchmarkFailure("ended before it was listening") }
        if length == -ETIMEDOUT { throw BenchmarkFailure("was not listening after 30 s") }
        guard length >= 0 else { throw BenchmarkFailure(String(cString: strerror(-length))) }

        let announcement = text(line.prefix(Int(length)))
        let port = announcement.split(separator: ":").last.flatMap { UInt16($0) }
        guard announcement.hasPrefix("listening on "), let port else {
            throw BenchmarkFailure("said \"\(announcement)\" instead of where it is listening")
        }
        return port
    }

    /// What the process said on standard error, on one line.
    static func words(from errors: Int32) -> String {
        var bytes = [CChar](repeating: 0, count: 1024)
        let length = child_read_errors(errors, &bytes, bytes.count)
        return text(bytes.prefix(length)).split(whereSeparator: \.isNewline).joined(separator: " ")
    }

    private static func text(_ bytes: ArraySlice<CChar>) -> String {
        String(decoding: bytes.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

/// Lends the strings as a NULL-terminated array, the form exec wants.
func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    let pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) } + [nil]
    defer { pointers.forEach { free($0) } }
    return pointers.withUnsafeBufferPointer { body($0.baseAddress!) }
}
