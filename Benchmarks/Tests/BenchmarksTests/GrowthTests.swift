// SPDX-License-Identifier: Apache-2.0

import EventLoops
import FoundationEssentials
import Testing

@testable import loopbench

/// `loopbench grow` in small: few connections, yet two source addresses, two generator and two server processes.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct GrowthTests {
    private var split: GrowthSettings {
        var settings = GrowthSettings(
            plan: CPUPlan(server: nil, generator: nil), descriptorLimit: 1024, forcedServers: 2, forcedGenerators: 2)
        settings.warmup = 0.05
        settings.measured = 0.1
        return settings
    }

    /// Whether the contender's kernel interface can be had; if not, says so instead of passing quietly.
    private func canServe(_ contender: Contender) -> Bool {
        guard contender.floor == .uringFloor, case .denied(let why) = ProactorLoop.probe() else { return true }
        print("SKIPPED \(contender.rawValue): \(why)")
        return false
    }

    @Test(arguments: GrowthMeasure.allCases)
    func everyMeasureOfALoop(_ measure: GrowthMeasure) throws {
        for contender in [Contender.proactorCallback, .selectorAsync] where canServe(contender) {
            let (figures, failure) = try GrowthMeasures(settings: split).take(measure, contender, connections: 20)
            #expect(failure == nil)
            #expect(figures[.mismatches] ?? 0 == 0)
        }
    }

    @Test(arguments: [Contender.uringFloor, .libevFloor])
    func floorsShareAPort(_ floor: Contender) throws {
        guard canServe(floor) else { return }
        let servers = try ServerGroup(floor, count: 2, cpu: nil)
        let before = servers.descriptors
        let crowd = try Crowd(connections: 21, to: servers, sources: 2, settings: split)
        #expect(crowd.processes == 2)
        for _ in 0..<7 { try crowd.connect(3) }
        #expect(servers.descriptors == before + 21)
        for _ in 0..<3 {
            let outcome = try crowd.echo(5, messageBytes: 1000)
            #expect(outcome.echoes == 105)
            #expect(outcome.bytes == 105_000)
            #expect(outcome.mismatches == 0)
        }
        try servers.stop()
    }

    @Test func crowdSaysWhyItCannot() throws {
        let servers = try ServerGroup(.libevFloor, count: 1, cpu: nil)
        let crowd = try Crowd(connections: 4, to: servers, settings: split)
        #expect {
            try crowd.connect(5)
        } throws: {
            "\($0)".contains("more connections than were announced")
        }
        try servers.stop()
        #expect {
            try crowd.connect(4)
        } throws: {
            "\($0)".contains("onnecting") || "\($0)".contains("refused")
        }
    }

    @Test func processesFollowFromTheLimit() throws {
        var settings = GrowthSettings(plan: CPUPlan(server: nil, generator: nil), descriptorLimit: 20_000)
        #expect(try settings.serverProcesses(for: 10_000) == 1)
        #expect(try settings.serverProcesses(for: 50_000) == 3)
        #expect(try settings.generatorProcesses(for: 50_000) == 3)
        #expect(try settings.generatorProcesses(for: 1) == 1)
        settings.forcedServers = 2
        #expect {
            try settings.serverProcesses(for: 50_000)
        } throws: {
            "\($0)".contains("ulimit -n 26314")
        }
    }

    @Test func acceptQueueOfAllListeners() {
        let table = """
              sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 1 1 0
               1: 0100007F:1F90 00000000:0000 0A 00000000:00000010 00:00000000 00000000     0        0 2 1 0
               2: 0100007F:1F91 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 3 1 0
               3: 0100007F:1F90 0200007F:8000 01 00000000:00000007 00:00000000 00000000     0        0 4 1 0
            """
        #expect(AcceptQueue.parse(table, port: 8080) == 21)
        #expect(AcceptQueue.parse(table, port: 1) == nil)
    }

    @Test func memoryTables() {
        #expect(ProcessMemory.kibibytes("Slab:", in: "MemFree:  7 kB\nSlab:   12 kB\n") == 12)
        #expect(KernelMemory.tcpPages("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 8 mem 2\nUDP: mem 1\n") == 2)
    }

    @Test func commandsOfSeveralServers() {
        let single = ["server", "--port", "0", "--threads", "1"]
        #expect(ServerGroup.command(single, port: 80, shares: false) == single)
        #expect(
            ServerGroup.command(single, port: 80, shares: true)
                == ["server", "--port", "80", "--threads", "1", "--share-port"])
    }

    /// Twice as dear per request where the floor is only 1.5 times as dear: 1.33 times the floor's growth.
    @Test func growthIsComparedWithinARound() throws {
        func echo(_ contender: Contender, _ connections: Int, _ cost: Double) -> GrowthMeasurement {
            GrowthMeasurement(
                measure: .echo, contender: contender, connections: connections, round: 1, serverProcesses: 1,
                figures: [.serverMicrosecondsPerRequest: cost], failure: nil)
        }
        let results = GrowthResults(
            machine: .present(CPUPlan(server: nil, generator: nil)),
            growth: [
                echo(.selectorAsync, 50, 4), echo(.selectorAsync, 1000, 8), echo(.libevFloor, 50, 4),
                echo(.libevFloor, 1000, 6),
            ])
        let growth = try #require(results.growthOverFloor(.selectorAsync, few: 50, many: 1000))
        #expect(abs(growth.median - 4.0 / 3) < 0.001)
        let json = String(decoding: try JSONEncoder().encode(results), as: UTF8.self)
        #expect(json.contains("\"failure\":null"))
        #expect(json.contains("\"serverMicrosecondsPerRequest\":8"))
    }
}
