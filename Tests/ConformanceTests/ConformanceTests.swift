// SPDX-License-Identifier: Apache-2.0
//
// ConformanceTests.swift: the table of docs/conformance.md says what a run said, from records as `swift test` writes
// them; and an older table is judged by a newer run.

import Testing

@testable import Conformance

/// A run, put together record by record as the event stream has them.
private struct Stream {
    private(set) var text = ""

    private mutating func add(_ kind: String, _ payload: String) {
        text += #"{"kind":"\#(kind)","payload":{\#(payload)},"version":0}"# + "\n"
    }

    private static func testCase(_ arguments: String?) -> String {
        arguments.map { #""_testCase":{"displayName":"\#($0)","id":"id of \#($0)"},"# } ?? ""
    }

    mutating func test(_ name: String, parameterized: Bool = true) {
        add("test", #""displayName":"\#(name)","id":"\#(name)","isParameterized":\#(parameterized),"kind":"function""#)
        if !parameterized { event("testStarted", name) }
    }

    mutating func event(_ kind: String, _ test: String?, _ arguments: String? = nil) {
        let testID = test.map { #","testID":"\#($0)""# } ?? ""
        add("event", #"\#(Stream.testCase(arguments))"kind":"\#(kind)","messages":[]\#(testID)"#)
    }

    mutating func issue(_ test: String?, _ arguments: String? = nil, isKnown: Bool = false) {
        let testID = test.map { #","testID":"\#($0)""# } ?? ""
        add(
            "event",
            Stream.testCase(arguments) + #""issue":{"isKnown":\#(isKnown)},"kind":"issueRecorded","#
                + #""messages":[{"symbol":"fail","text":"why"}]\#(testID)"#)
    }

    /// A case from its start to its end.
    mutating func testCase(_ test: String, _ arguments: String, fails: Bool = false) {
        event("testCaseStarted", test, arguments)
        if fails { issue(test, arguments) }
        event("testCaseEnded", test, arguments)
    }

    mutating func end() { event("runEnded", nil) }

    func run() throws -> TestRun { try TestRun.parse(text) }
}

private func makeRun(_ body: (inout Stream) -> Void) throws -> TestRun {
    var stream = Stream()
    body(&stream)
    stream.end()
    return try stream.run()
}

/// Tests that run on both loops; one of them may fail.
private func makeRunOnBoth(_ tests: [String] = ["E4 stop", "Z9 echo | pipes"], failing: String? = nil) throws -> TestRun
{
    try makeRun { stream in
        for test in tests {
            stream.test(test)
            for loop in [".selector", ".proactor"] { stream.testCase(test, loop, fails: test == failing) }
        }
    }
}

private let rows = [
    Row(id: "E4", group: "Stopping", loops: .both, name: "stop"),
    Row(id: "S6", group: "Selectors", loops: .selector, name: "the best selector"),
    Row(id: "T15", group: "Callbacks", loops: .none, name: "no async callback"),
    Row(id: "Z9", group: "Core", loops: .both, name: "multishot"),
]

private func makeTable(_ simulated: TestRun? = nil, _ body: (inout Stream) -> Void) throws -> Table {
    Table(rows: rows, run: try makeRun(body), simulated: simulated)
}

private func cells(_ table: Table, _ id: String) throws -> [String] {
    let line = try #require(table.lines.first { $0.row.id == id })
    return [line.selector, line.proactor, line.simulator].map(\.rawValue)
}

@Suite("Conformance")
struct ConformanceTests {
    @Test("N13 a test belongs to the rows whose ids its name starts with")
    func rowIDsOfNames() {
        #expect(rowIDs(startingNameOf: "Z9 Z14 echo without S1").ids == ["Z9", "Z14"])
        #expect(rowIDs(startingNameOf: "Z9 Z14 echo without S1").rest == "echo without S1")
        #expect(rowIDs(startingNameOf: "S1: the policy, T8, E4").ids == ["S1"])
        #expect(rowIDs(startingNameOf: "S1, T8: the policy").ids == ["S1", "T8"])
        #expect(rowIDs(startingNameOf: "Z9 64 senders").rest == "64 senders")
        for name in ["E2BIG is an error", "IPv6 too", "EMFILE at accept", "S", "12 of them", "e4 in small letters", ""]
        {
            #expect(rowIDs(startingNameOf: name).ids == [], "\(name)")
        }
    }

    @Test("N13 each loop is shown what its own cases came to")
    func outcomePerLoop() throws {
        let table = try makeTable {
            $0.test("E4 stop")
            $0.testCase("E4 stop", ".selector")
            $0.testCase("E4 stop", ".proactor, 2", fails: true)
            $0.test("scenarios")
            $0.testCase("scenarios", "Z9 Z9 echo [proactor, tiny]")
            $0.testCase("scenarios", "Z9 echo [proactor, ordinary]")
        }
        #expect(try cells(table, "E4") == ["pass", "fail", "not yet"])
        #expect(try cells(table, "Z9") == ["not yet", "pass", "not yet"])
        #expect(table.lines.map(\.tests) == [["stop"], [], [], ["echo"]])
    }

    @Test("N13 one case that fails among others is a failed row")
    func oneOfMany() throws {
        let table = try makeTable {
            $0.test("E4 stop")
            for number in 1...5 { $0.testCase("E4 stop", ".selector, \(number)", fails: number == 3) }
        }
        #expect(try cells(table, "E4")[0] == "fail")
    }

    @Test("N13 a test that needs no loop counts for both, unless others of its row need one")
    func withoutLoop() throws {
        let alone = try makeTable {
            $0.test("E4 plain", parameterized: false)
            $0.event("testEnded", "E4 plain")
        }
        #expect(try cells(alone, "E4") == ["pass", "pass", "not yet"])
        let beside = try makeTable {
            $0.test("E4 plain", parameterized: false)
            $0.event("testEnded", "E4 plain")
            $0.test("E4 stop")
            $0.testCase("E4 stop", ".selector")
        }
        #expect(try cells(beside, "E4") == ["pass", "not yet", "not yet"])
        let failed = try makeTable {
            $0.test("E4 plain", parameterized: false)
            $0.issue("E4 plain")
            $0.event("testEnded", "E4 plain")
        }
        #expect(try cells(failed, "E4") == ["fail", "fail", "not yet"])
    }

    @Test("N13 rows of one loop, and of none, are not applicable elsewhere")
    func notApplicable() throws {
        let table = try makeTable {
            $0.test("S6 best", parameterized: false)
            $0.event("testEnded", "S6 best")
        }
        #expect(try cells(table, "S6") == ["pass", "—", "not yet"])
        #expect(try cells(table, "T15") == ["—", "—", "—"])
    }

    @Test("N13 a case that began and did not end has failed; what was skipped or known to fail has not")
    func endings() throws {
        let crashed = try makeTable {
            $0.test("E4 stop")
            $0.event("testCaseStarted", "E4 stop", ".selector")
            $0.testCase("E4 stop", ".proactor")
        }
        #expect(try cells(crashed, "E4") == ["fail", "pass", "not yet"])
        let others = try makeTable {
            $0.test("E4 stop")
            $0.event("testCaseStarted", "E4 stop", ".selector")
            $0.event("testCaseCancelled", "E4 stop", ".selector")
            $0.event("testCaseStarted", "E4 stop", ".proactor")
            $0.issue("E4 stop", ".proactor", isKnown: true)
            $0.event("testCaseEnded", "E4 stop", ".proactor")
        }
        #expect(try cells(others, "E4") == ["not yet", "pass", "not yet"])
    }

    @Test("N13 a test that is skipped decides nothing, and is listed nevertheless")
    func skipped() throws {
        let table = try makeTable {
            $0.test("E4 stop")
            $0.testCase("E4 stop", ".selector")
            $0.testCase("E4 stop", ".proactor")
            $0.test("E4 stop by an outside program")
            $0.event("testSkipped", "E4 stop by an outside program")
        }
        #expect(try cells(table, "E4") == ["pass", "pass", "not yet"])
        #expect(table.lines.first { $0.row.id == "E4" }?.tests == ["stop", "stop by an outside program"])
    }

    @Test("N13 failures outside of tests are kept, and a run without an end is refused")
    func runs() throws {
        #expect(try makeRun { $0.issue(nil) }.strayIssues == ["why"])
        #expect(throws: Failure.self) { try Stream().run() }
        #expect(throws: Failure.self) { try TestRun.parse("{}") }
        #expect(throws: Failure.self) { try TestRun.parse(#"{"kind":"event","payload":{},"version":"6.3.0"}"#) }
    }

    @Test("N13 a simulated run has a column of its own")
    func simulator() throws {
        let simulated = try makeRun {
            $0.test("E4 stop")
            $0.testCase("E4 stop", ".selector")
            $0.testCase("E4 stop", ".proactor")
            $0.test("Z9 echo")
            $0.testCase("Z9 echo", ".selector", fails: true)
            $0.testCase("Z9 echo", ".proactor")
        }
        let table = try makeTable(simulated) {
            $0.test("E4 stop")
            $0.testCase("E4 stop", ".selector")
            $0.testCase("E4 stop", ".proactor")
        }
        #expect(try cells(table, "E4") == ["pass", "pass", "pass"])
        #expect(try cells(table, "Z9") == ["simulated only", "simulated only", "fail"])
    }

    @Test("N13 an id that no row has is told, with its tests")
    func unknownIDs() throws {
        let table = try makeTable {
            $0.test("E4 E99 stop", parameterized: false)
            $0.event("testEnded", "E4 E99 stop")
        }
        #expect(table.unknown.map(\.id) == ["E99"])
        #expect(table.unknown.first?.tests == ["E4 E99 stop"])
    }
}

@Suite("Conformance, an older table")
struct OlderTableTests {
    @Test("N13 the table of the same run is up to date, on whatever kernel")
    func same() throws {
        let run = try makeRunOnBoth()
        let table = Table(rows: rows, run: run, simulated: run)
        #expect(table.problems(comparedWith: table.markdown(kernel: "6.1")) == [])
        #expect(table.markdown(kernel: "6.1").contains(#"| echo \| pipes |"#))
    }

    @Test("N13 a row that no longer passes is told first")
    func worse() throws {
        let before = Table(rows: rows, run: try makeRunOnBoth(), simulated: nil).markdown(kernel: "6.1")
        let now = Table(rows: rows, run: try makeRunOnBoth(failing: "Z9 echo | pipes"), simulated: nil)
        #expect(
            now.problems(comparedWith: before) == [
                "Z9 on SelectorLoop: was pass, is fail", "Z9 on ProactorLoop: was pass, is fail", "Z9 is out of date",
            ])
    }

    @Test("N13 rows and tests that came or went make a table out of date")
    func stale() throws {
        let run = try makeRunOnBoth()
        let before = Table(rows: rows, run: run, simulated: nil).markdown(kernel: "6.1")
        let fewer = Table(rows: Array(rows.dropLast()), run: run, simulated: nil)
        #expect(fewer.problems(comparedWith: before) == ["Z9 is no row any more"])
        #expect(
            Table(rows: rows, run: run, simulated: nil).problems(comparedWith: fewer.markdown(kernel: "6.1"))
                == ["Z9 is missing"])
        let renamed = try makeRunOnBoth(["E4 stopping", "Z9 echo | pipes"])
        #expect(
            Table(rows: rows, run: renamed, simulated: nil).problems(comparedWith: before) == ["E4 is out of date"])
    }

    @Test("N13 without a simulated run, what was said of the simulator stays")
    func simulatorStays() throws {
        let simulated = try makeRunOnBoth()
        let empty = try makeRunOnBoth([])
        let before = Table(rows: rows, run: empty, simulated: simulated).markdown(kernel: "6.1")
        #expect(Table(rows: rows, run: empty, simulated: nil).problems(comparedWith: before) == [])
        let failing = Table(rows: rows, run: empty, simulated: try makeRunOnBoth(failing: "E4 stop"))
        #expect(failing.problems(comparedWith: before) == ["E4 on Simulator: was pass, is fail", "E4 is out of date"])
    }
}

@Suite("Conformance, the rows")
struct RowTests {
    @Test("N13 rows are read with their group, loops and name")
    func parse() throws {
        let parsed = try Row.parse(
            "# a comment\nE4\tStopping\tboth\tstop\n\nS6\tSelectors\tselector\tthe best selector\n")
        #expect(parsed == Array(rows.prefix(2)))
    }

    @Test(
        "N13 lines that are no rows are refused",
        arguments: [
            "E4\tStopping\tboth", "E4\tStopping\tneither\tstop", "E\tStopping\tboth\tstop", "E4\tStopping\tboth\t",
            "E4\tStopping\tboth\tstop\nE4\tStopping\tboth\tstop",
            "E4\tStopping\tboth\t" + String(repeating: "x", count: 61),
        ])
    func refused(_ text: String) {
        #expect(throws: Failure.self) { try Row.parse(text) }
    }
}
