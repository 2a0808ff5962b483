// SPDX-License-Identifier: Apache-2.0

import EventLoops
import Foundation
import Testing

@testable import loopbench

/// `loopbench serve` as its users meet it: a process of its own, loaded from outside, told to end by a signal.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ServeTests {
    static let servers: [(loop: String, api: String)] = ["selector", "proactor"].flatMap { loop in
        ["async", "callback"].map { (loop, $0) }
    }

    private func command(_ loop: String, _ api: String) throws -> [String] {
        [try Programs.beside("loopbench"), "serve", "--loop", loop, "--api", api, "--port", "0"]
    }

    /// Whether io_uring can be had; if not, says so instead of passing quietly.
    private func canServe(_ loop: String) -> Bool {
        guard loop == "proactor", case .denied(let why) = ProactorLoop.probe() else { return true }
        print("SKIPPED \(loop): \(why)")
        return false
    }

    @Test(arguments: servers)
    func thousandConnectionsLeaveNothingBehind(_ server: (loop: String, api: String)) throws {
        guard canServe(server.loop) else { return }
        let process = try ServerProcess(command: try command(server.loop, server.api), cpu: nil)
        let descriptors = try openDescriptors(of: process)
        let scenario = Scenario(connections: 1000, messageBytes: 64, depth: 1)
        // The first load makes the tables as large as they get.
        _ = try Generator().run(scenario, for: .echoes(20), against: process, cpu: nil)
        #expect(try descriptorsReturn(to: descriptors, of: process))
        let memory = try residentBytes(of: process)
        for _ in 0..<4 {
            let outcome = try Generator().run(scenario, for: .echoes(20), against: process, cpu: nil)
            #expect(outcome.mismatches == 0)
            #expect(outcome.echoes == 20_000)
        }
        #expect(try descriptorsReturn(to: descriptors, of: process))
        #expect(try residentBytes(of: process) - memory < 1 << 20, "4000 connections later")
        #expect(process.stop(), "ends politely")
    }

    @Test func severalThreadsShareThePort() throws {
        let process = try ServerProcess(
            command: try command("best", "async") + ["--threads", "2"], cpu: nil)
        let scenario = Scenario(connections: 64, messageBytes: 64, depth: 4)
        let outcome = try Generator().run(scenario, for: .echoes(50), against: process, cpu: nil)
        #expect(outcome.mismatches == 0)
        #expect(process.stop())
    }

    /// A real seccomp filter, as container engines set by default.
    @Test("N1 best serves on the selector where io_uring is refused, and says why")
    func bestFallsBack() throws {
        let refusing = [try Programs.beside("without-io-uring")]
        let process = try ServerProcess(command: refusing + command("best", "async"), cpu: nil)
        let scenario = Scenario(connections: 10, messageBytes: 64, depth: 1)
        #expect(try Generator().run(scenario, for: .echoes(10), against: process, cpu: nil).echoes == 100)
        #expect(process.complaints.contains("selector"))
        #expect(process.complaints.contains("EPERM"))
        #expect(process.stop())
    }

    @Test("N1 proactor, asked for by name, ends with the reason where io_uring is refused")
    func proactorRefuses() throws {
        let refusing = [try Programs.beside("without-io-uring")]
        #expect {
            try ServerProcess(command: refusing + command("proactor", "async"), cpu: nil)
        } throws: {
            "\($0)".contains("io_uring is not available") && "\($0)".contains("seccomp")
        }
    }

    // MARK: Looking at the server from outside

    private func openDescriptors(of process: ServerProcess) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process.identifier)/fd").count
    }

    /// The server learns of its clients' leaving after they have left.
    private func descriptorsReturn(to count: Int, of process: ServerProcess) throws -> Bool {
        let end = LoopInstant.now.advanced(by: .seconds(20))
        while LoopInstant.now < end {
            if try openDescriptors(of: process) == count { return true }
            sched_yield()
        }
        return false
    }

    private func residentBytes(of process: ServerProcess) throws -> Int {
        let fields = try String(contentsOfFile: "/proc/\(process.identifier)/statm", encoding: .utf8).split(
            separator: " ")
        return (Int(fields[1]) ?? 0) * Int(getpagesize())
    }
}
