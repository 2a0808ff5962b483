// SPDX-License-Identifier: Apache-2.0
//
// TestRun.swift: one run of the suite, read from the event stream that `swift test` writes: what each case of each
// test came to. Version 0 of the stream is the only one that names the cases of parameterised tests.

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What the cases of a run came to.
struct TestRun {
    enum Outcome {
        case passed, failed
    }

    /// One test with one set of arguments.
    struct Case {
        /// The test's name, and for a case that has a name of its own, that.
        var name: String
        /// The loop among its arguments; nil if it needs none.
        var loop: Row.Loops?
        var outcome: Outcome
    }

    /// Without those that were skipped.
    var cases: [Case] = []
    /// Failures that no test owns, such as those of a task that outlived its test.
    var strayIssues: [String] = []
    /// Names of tests that were skipped, say for want of a program.
    var skippedTests: [String] = []

    func hasCases(on loop: Row.Loops) -> Bool { cases.contains { $0.loop == loop } }

    static func parse(_ stream: String) throws -> TestRun {
        var reader = Reader()
        for (index, line) in stream.split(separator: "\n").enumerated() {
            do {
                try reader.read(JSONDecoder().decode(Record.self, from: Data(line.utf8)))
            } catch let error as DecodingError {
                throw Failure("results, line \(index + 1): not a record of the event stream: \(error)")
            }
        }
        return try reader.result()
    }
}

/// What we use of a record. Names that start with an underscore belong to version 0.
private struct Record: Decodable {
    struct Payload: Decodable {
        var id: String?
        var displayName: String?
        var name: String?
        var kind: String?
        var isParameterized: Bool?
        var testID: String?
        var issue: Issue?
        var messages: [Message]?
        var _testCase: TestCase?
    }
    struct TestCase: Decodable {
        var id: String
        var displayName: String
    }
    struct Issue: Decodable { var isKnown: Bool }
    struct Message: Decodable { var text: String }

    var kind: String
    var version: Version
    var payload: Payload

    /// A number at first, a string later on.
    struct Version: Decodable {
        var isZero: Bool
        init(from decoder: any Decoder) throws {
            isZero = try decoder.singleValueContainer().decode(Int.self) == 0
        }
    }
}

private struct Reader {
    private struct CaseID: Hashable {
        var test: String
        var testCase: String
    }

    private var names: [String: String] = [:]
    /// Tests without arguments have no cases in the stream; each is its own.
    private var plainTests: Set<String> = []
    /// In the order they began.
    private var begun: [CaseID] = []
    private var arguments: [CaseID: String] = [:]
    private var ended: Set<CaseID> = []
    private var failed: Set<CaseID> = []
    private var skipped: Set<CaseID> = []
    private var skippedTests: Set<String> = []
    private var failedTests: Set<String> = []
    private var strayIssues: [String] = []
    private var runEnded = false

    mutating func read(_ record: Record) throws {
        guard record.version.isZero else { throw Failure("results: version 0 of the event stream is wanted") }
        let payload = record.payload
        if record.kind == "test" {
            guard let id = payload.id, payload.kind == "function" else { return }
            names[id] = payload.displayName ?? payload.name
            if payload.isParameterized != true { plainTests.insert(id) }
            return
        }
        let id = payload.testID.map { CaseID(test: $0, testCase: payload._testCase?.id ?? "") }
        switch (payload.kind, id) {
        case ("runEnded", _):
            runEnded = true
        case ("testStarted", let id?) where plainTests.contains(id.test):
            begun.append(id)
            arguments[id] = ""
        case ("testEnded", let id?) where plainTests.contains(id.test):
            ended.insert(id)
        case ("testCaseStarted", let id?) where payload._testCase != nil:
            begun.append(id)
            arguments[id] = payload._testCase?.displayName ?? ""
        case ("testCaseEnded", let id?) where payload._testCase != nil:
            ended.insert(id)
        case ("testCaseCancelled", let id?), ("testCancelled", let id?), ("testSkipped", let id?):
            skipped.insert(id)
            if payload.kind == "testSkipped" { skippedTests.insert(id.test) }
        case ("issueRecorded", let id) where payload.issue?.isKnown != true:
            if let id, arguments[id] != nil {
                failed.insert(id)
            } else if let id {
                failedTests.insert(id.test)
            } else {
                strayIssues.append((payload.messages ?? []).map(\.text).joined(separator: ": "))
            }
        default:
            break
        }
    }

    func result() throws -> TestRun {
        guard runEnded else { throw Failure("results: the run did not come to its end") }
        var run = TestRun()
        run.strayIssues = strayIssues
        run.skippedTests = skippedTests.compactMap { names[$0] }
        for id in begun where !skipped.contains(id) {
            let test = names[id.test] ?? id.test
            let arguments = arguments[id] ?? ""
            let passed = ended.contains(id) && !failed.contains(id) && !failedTests.contains(id.test)
            let split = splitScenario(arguments)
            run.cases.append(
                TestRun.Case(
                    name: split?.name ?? test, loop: split?.loop ?? loop(among: arguments),
                    outcome: passed ? .passed : .failed))
        }
        return run
    }

    /// Cases that are named: "NAME [selector, tiny]".
    private func splitScenario(_ arguments: String) -> (name: String, loop: Row.Loops)? {
        guard arguments.hasSuffix("]"), let open = arguments.lastIndex(of: "[") else { return nil }
        let words = arguments[arguments.index(after: open)...].dropLast().split(separator: ",")
        guard let loop = words.first.flatMap({ Row.Loops(rawValue: String($0)) }) else { return nil }
        return (String(arguments[..<open].dropLast(while: { $0 == " " })), loop)
    }

    /// Cases that have a `LoopKind` among their arguments: ".selector, 3".
    private func loop(among arguments: String) -> Row.Loops? {
        for argument in arguments.split(separator: ",") {
            switch argument.drop(while: { $0 == " " || $0 == "(" }).prefix(while: { $0 != ")" }) {
            case ".selector": return .selector
            case ".proactor": return .proactor
            default: continue
            }
        }
        return nil
    }
}

extension Substring {
    fileprivate func dropLast(while predicate: (Character) -> Bool) -> Substring {
        var end = endIndex
        while end > startIndex, predicate(self[index(before: end)]) { end = index(before: end) }
        return self[..<end]
    }
}
