// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

/// What the counts are read from: callgrind's file, the servers' own line, and lives against each other.
struct CountsTests {
    /// Names given once and by number later, an object of its own for a callee, a recursion, an inclusive cost.
    private static let profile = """
        # callgrind format
        version: 1
        positions: line
        events: Ir
        summary: 130

        ob=(1) /usr/bin/server
        fl=(1) ???
        fn=(1) $s6server4echoyyF
        0 100
        cob=(2) /usr/lib/libswiftCore.so
        cfn=(2) swift_retain
        calls=7 0
        0 5000
        0 2
        cfn=(3) helper
        calls=1 0
        0 9
        +3 4

        fn=(3)
        0 9

        ob=(2)
        fn=(2)
        0 10
        cfn=(4) swift_retain_n
        calls=7 0
        0 21

        fn=(5) swift_retain'2
        * 5
        """

    private let echo = CallgrindProfile.Function(name: "$s6server4echoyyF", object: "server")
    private let retain = CallgrindProfile.Function(name: "swift_retain", object: "libswiftCore.so")

    @Test func instructionsAreOfTheFunctionItself() {
        let profile = CallgrindParser.parse(Self.profile)
        #expect(profile.instructions[echo] == 106)
        #expect(profile.instructions[retain] == 15, "a recursive call is the same function")
        #expect(profile.total == 130)
    }

    @Test func callsAreOfTheObjectTheyGoTo() {
        let profile = CallgrindParser.parse(Self.profile)
        #expect(profile.callsByCallee[retain] == 7)
        #expect(profile.callsByCallee[CallgrindProfile.Function(name: "helper", object: "server")] == 1)
    }

    /// One that is made by another is not counted twice.
    @Test func retainsAreCountedWhereTheyEnterTheRuntime() {
        let references = ReferenceCounts(CallgrindParser.parse(Self.profile))
        #expect(references.retains == 7)
        #expect(references.releases == 0)
        #expect(references.retainers == [echo: 7])
    }

    @Test func namesOfTheRuntime() {
        #expect(ReferenceCounts.isRetain("swift_bridgeObjectRetain_n"))
        #expect(ReferenceCounts.isRelease("swift_unknownObjectRelease"))
        #expect(!ReferenceCounts.isRelease("_swift_release_dealloc"))
        #expect(!ReferenceCounts.isRetain("swift_retainCount"))
        #expect(!ReferenceCounts.isRetain("lc_stream_retain"))
    }

    @Test func profilesPerEcho() {
        let whole = CallgrindParser.parse(Self.profile)
        let echo = CallgrindProfile.perEcho(whole, less: CallgrindProfile(), echoes: 10)
        #expect(echo.total == 13)
        #expect(CallgrindProfile.perEcho(whole, less: whole, echoes: 10).total == 0)
    }

    @Test func statisticsOfAServer() {
        let lines = ["served 1 requests", "statistics ticks=12 entries=13 voluntary-switches=4"]
        #expect(OwnStatistics.parse(lines) == ["ticks": 12, "entries": 13, "voluntary-switches": 4])
        #expect(OwnStatistics.parse(["served 1 requests"]).isEmpty)
    }

    @Test func theLeastOfSeveralLives() {
        #expect(EchoCounter.least([["read": 3, "futex": 1], ["read": 4]]) == ["read": 3, "futex": 0])
    }

    @Test func scenariosByName() {
        #expect(Scenario(label: "50/64/32") == Scenario(connections: 50, messageBytes: 64, depth: 32))
        #expect(["", "50/64", "50/64/0", "a/b/c", "50/64/1/1"].allSatisfy { Scenario(label: $0) == nil })
    }

    /// A wave is whole: every message of every connection comes back before the next, partial sends included.
    @Test(.timeLimit(.minutes(5)), arguments: [64, 1_000_000])
    func wavesBringEverythingBack(_ bytes: Int) throws {
        let server = try ServerProcess(command: try Contender.libevFloor.command(), cpu: nil)
        let scenario = Scenario(connections: 8, messageBytes: bytes, depth: 3)
        let outcome = try Generator().run(scenario, for: .waves(5), against: server, cpu: nil)
        #expect(outcome.echoes == 8 * 3 * 5)
        #expect(outcome.mismatches == 0)
        #expect(server.stop())
        let statistics = OwnStatistics.parse(server.remainingLines())
        #expect(statistics["ticks", default: 0] >= 5)
        #expect(statistics["voluntary-switches", default: 0] >= 5)
    }

    /// Without a signal, once its connections are gone.
    @Test(.timeLimit(.minutes(5)), arguments: ["async", "callback"])
    func serverEndsWithItsConnections(_ api: String) throws {
        let server = try ServerProcess(
            command: [
                try Programs.beside("loopbench"), "serve", "--loop", "selector", "--api", api, "--until-closed", "4",
            ], cpu: nil)
        let scenario = Scenario(connections: 4, messageBytes: 64, depth: 1)
        #expect(try Generator().run(scenario, for: .echoes(10), against: server, cpu: nil).echoes == 40)
        #expect(server.awaitEnd(milliseconds: 20_000))
        #expect(server.stop())
    }
}
