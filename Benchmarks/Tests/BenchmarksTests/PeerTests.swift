// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import loopbench

/// Peers that are here keep the servers' contract; those that are not are named, and nothing fails for it.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct PeerTests {
    @Test(arguments: Contender.peers)
    func keepsTheContract(_ contender: Contender) throws {
        let lineup = try Lineup([contender])
        if let absent = lineup.absent.first {
            print("SKIPPED \(contender.rawValue): \(absent.reason)")
            return
        }
        #expect(lineup.versions[contender.rawValue]?.isEmpty == false)
        let server = try ServerProcess(command: try contender.command(), cpu: nil)
        let pipelined = Scenario(connections: 8, messageBytes: 64, depth: 4)
        let large = Scenario(connections: 4, messageBytes: 1_000_000, depth: 1)
        for (scenario, echoes) in [(pipelined, 100), (large, 3)] {
            let outcome = try Generator().run(scenario, for: .echoes(echoes), against: server, cpu: nil)
            #expect(outcome.echoes == UInt64(scenario.connections * echoes))
            #expect(outcome.mismatches == 0)
        }
        #expect(server.stop(), "ends by itself with status 0")
    }

    @Test func absentPeerIsNamedInTableAndLineup() throws {
        let folders = PeerFolders(package: FileManager.default.temporaryDirectory.path + "/\(UUID().uuidString)")
        let lines = PeersTable(contenders: [.libuv], folders: folders).lines()
        #expect(
            lines == [
                "peer   version  here                                  needs",
                "libuv  -        not built: loopbench peers --install  gcc pkg-config libuv1-dev",
            ])
        let lineup = try Lineup([.proactorAsync, .libuv], folders: folders)
        #expect(lineup.present == [.proactorAsync])
        #expect(lineup.absent.map(\.contender) == [.libuv])
        #expect(lineup.versions.isEmpty)
    }

    @Test func failedBuildSaysWhy() {
        #expect(Peer.lastWords("compiling\necho.c:1:2: error: no uv.h\nstopped\n") == "echo.c:1:2: error: no uv.h")
        #expect(Peer.lastWords("libuv is missing\n") == "libuv is missing")
        #expect(Peer.lastWords("") == nil)
    }

    @Test func packagesAreFetchedOnceAndOnlyIfNeeded() {
        let missing = PeerInstaller.missingPackages(
            of: [.tokio, .asioEpoll, .asioUring, .libuv], hasProgram: { ["c++", "cc", "pkg-config"].contains($0) },
            hasPackage: { $0 == "liburing-dev" })
        #expect(missing == ["cargo", "librust-tokio-dev", "libasio-dev", "libuv1-dev"])
    }

    @Test func contendersAreChosenByName() throws {
        #expect(try Choices.contenders("uvloop, proactor async,uvloop") == [.proactorAsync, .uvloop])
        #expect(throws: (any Error).self) { try Choices.contenders("node") }
        #expect(Contender.ours.count == 6)
        #expect(Set(Contender.ours + Contender.peers) == Set(Contender.allCases))
    }

    @Test func scenariosAreChosenByShape() throws {
        let chosen = try Choices.scenarios("50/64/1, 1000/64/32")
        #expect(chosen.map(\.label) == ["50/64/1", "1000/64/32"])
        for wrong in ["50/64", "50/64/0", "a/b/c", "1/2/3/4", "1//2/3"] {
            #expect(throws: (any Error).self) { try Choices.scenarios(wrong) }
        }
    }

    /// 300 to 100 in the first round and 500 to 100 in the second.
    @Test func timesAheadAreTakenWithinRounds() {
        let scenario = Scenario(connections: 1, messageBytes: 64, depth: 1)
        var results = Results()
        for (round, contender, echoes) in [(1, Contender.proactorAsync, 300), (2, .proactorAsync, 500)]
            + [(1, .go, 100), (2, .go, 100)]
        {
            let figures = Measurement.Figures(
                echoes: UInt64(echoes), measuredNanoseconds: 1_000_000_000, mismatches: 0,
                serverNanoseconds: 1_000_000_000, latencyNanoseconds: Latencies(Latencies.empty()))
            results.add(
                Measurement(round: round, scenario: scenario, contender: contender, figures: figures, failure: nil),
                latencies: nil)
        }
        let report = PeersReport(results: results, contenders: [.proactorAsync, .go])
        #expect(report.lines(scenario).last == "go                 4.00 (3.00..5.00)    4.00 (3.00..5.00)")
        #expect(PeersReport(results: results, contenders: [.proactorAsync]).isEmpty)
    }
}
