// SPDX-License-Identifier: Apache-2.0

import Glibc

/// One contender's servers on one port: a single process, or several that share it where the descriptor limit is too
/// low for one. Also what can be seen of them from outside.
final class ServerGroup {
    private let processes: [ServerProcess]
    var port: UInt16 { processes[0].port }

    init(_ contender: Contender, count: Int, cpu: Int32?) throws {
        var processes: [ServerProcess] = []
        for _ in 0..<count {
            let command = Self.command(try contender.command(), port: processes.first?.port, shares: count > 1)
            processes.append(try ServerProcess(command: command, cpu: cpu))
        }
        self.processes = processes
    }

    /// The command of a single server with its port replaced and, for several, `--share-port` added.
    static func command(_ single: [String], port: UInt16?, shares: Bool) -> [String] {
        guard shares else { return single }
        var command = single
        if let port, let option = command.lastIndex(of: "--port"), option + 1 < command.count {
            command[option + 1] = "\(port)"
        }
        return command + ["--share-port"]
    }

    /// CPU time of all threads of all processes.
    var cpuNanoseconds: UInt64 {
        processes.reduce(0) { sum, process in
            var clock = clockid_t()
            var used = timespec()
            guard clock_getcpuclockid(process.identifier, &clock) == 0, clock_gettime(clock, &used) == 0 else {
                return sum
            }
            return sum + UInt64(used.tv_sec) * 1_000_000_000 + UInt64(used.tv_nsec)
        }
    }

    /// Memory that is theirs alone: heap, stacks, rings, buffers.
    var anonymousBytes: Int {
        processes.reduce(0) { $0 + (ProcessMemory.anonymousBytes(of: $1.identifier) ?? 0) }
    }

    var descriptors: Int {
        processes.reduce(0) { $0 + ProcessMemory.descriptors(of: $1.identifier) }
    }

    /// Returns when they have used no CPU time for a while, or after two seconds.
    func waitUntilIdle() {
        var before = cpuNanoseconds
        for _ in 0..<40 {
            usleep(50_000)
            let now = cpuNanoseconds
            if now - before < 100_000 { return }
            before = now
        }
    }

    /// - Throws: ``BenchmarkFailure`` when one did not end by itself.
    func stop() throws {
        for process in processes where !process.stop() {
            throw BenchmarkFailure("the server did not end when asked to. \(process.complaints)")
        }
    }

    var complaints: String { processes.map(\.complaints).joined(separator: " ") }
}
