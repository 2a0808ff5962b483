// SPDX-License-Identifier: Apache-2.0
//
// Conformance.swift: the program behind `make conformance` and `make conforms`: reads the rows, the results of the
// last run, and perhaps those of a simulated run; writes the table, or judges the one that is there.
//
//   Conformance write|check --table FILE --rows FILE --results FILE [--simulated FILE] --kernel RELEASE

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@main
struct Conformance {
    static func main() {
        do {
            let problems = try run(Array(CommandLine.arguments.dropFirst()))
            if problems.isEmpty { return }
            for problem in problems { print("    \(problem)") }
            exit(1)
        } catch {
            print("==> conformance: FAILED: \(error)")
            exit(2)
        }
    }

    /// What is wrong, one thing a line; prints the rest.
    static func run(_ arguments: [String]) throws -> [String] {
        var options = arguments.dropFirst()
        var values: [String: String] = [:]
        while let option = options.popFirst() {
            guard ["--table", "--rows", "--results", "--simulated", "--kernel"].contains(option),
                let value = options.popFirst()
            else { throw Failure("no such option, or no value: \(option)") }
            values[option] = value
        }
        func value(_ option: String) throws -> String {
            guard let value = values[option] else { throw Failure("\(option) is missing") }
            return value
        }

        let path = try value("--table")
        let run = try TestRun.parse(read(value("--results")))
        let simulated = try values["--simulated"].map { try TestRun.parse(read($0)) }
        let table = try Table(rows: Row.parse(read(value("--rows"))), run: run, simulated: simulated)

        var problems = table.unknown.map { "no row has the id \($0.id): \($0.tests.joined(separator: "; "))" }
        problems += (run.strayIssues + (simulated?.strayIssues ?? [])).map { "a failure outside of tests: \($0)" }
        if !run.hasCases(on: .proactor) || !run.hasCases(on: .selector) {
            // A container may refuse io_uring: what is seen there is no reason to call a table wrong.
            guard arguments.first == "check" else { throw Failure("the run has no results of one of the two loops") }
            print("==> conformance: SKIPPED: the run has no results of one of the two loops")
            return problems
        }
        switch arguments.first {
        case "write":
            try Data(table.markdown(kernel: value("--kernel")).utf8).write(to: URL(filePath: path))
            print("==> conformance: wrote \(path): \(table.lines.count) rows")
        case "check":
            problems += try table.problems(comparedWith: read(path))
            print(
                "==> conformance: \(path): \(problems.isEmpty ? "up to date" : "FAILED; if all is well: make conformance")"
            )
        default:
            throw Failure("usage: Conformance write|check --table FILE --rows FILE --results FILE ...")
        }
        return problems
    }

    private static func read(_ path: String) throws -> String {
        do {
            return String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
        } catch { throw Failure("\(path) cannot be read: \(error)") }
    }
}
