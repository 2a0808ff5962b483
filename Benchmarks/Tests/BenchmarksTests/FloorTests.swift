// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

/// Both floors echo what they are sent, in order, and end by themselves when asked to.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct FloorTests {
    @Test(arguments: [Contender.uringFloor, .libevFloor])
    func echoesPipelinedMessages(_ floor: Contender) throws {
        try echo(floor, Scenario(connections: 8, messageBytes: 64, depth: 4), echoes: 100)
    }

    /// More bytes in flight than the io_uring floor has buffers and than a socket holds: short sends, full sockets
    /// and starved receives are the ordinary path.
    @Test(arguments: [Contender.uringFloor, .libevFloor])
    func echoesMoreThanFits(_ floor: Contender) throws {
        try echo(floor, Scenario(connections: 16, messageBytes: 1_000_000, depth: 2), echoes: 4)
    }

    private func echo(_ floor: Contender, _ scenario: Scenario, echoes: Int) throws {
        let server: ServerProcess
        do {
            server = try ServerProcess(command: try floor.command(), cpu: nil)
        } catch let failure as BenchmarkFailure where failure.description.contains("io_uring is refused") {
            print("SKIPPED \(floor.rawValue): \(failure)")
            return
        }
        let outcome = try Generator().run(scenario, for: .echoes(echoes), against: server, cpu: nil)
        #expect(outcome.echoes == UInt64(scenario.connections * echoes))
        #expect(outcome.mismatches == 0)
        #expect(outcome.latencies.totalCount == outcome.echoes)
        #expect(server.stop())
    }
}
