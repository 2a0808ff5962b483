// SPDX-License-Identifier: Apache-2.0

import Glibc
import Histogram
import LoadGenerator

/// Many connections to one port, held by as many generator processes as the descriptor limit demands.
final class Crowd {
    private let crowd: OpaquePointer
    private let port: UInt16
    private var samples = load_samples()
    let processes: Int
    private(set) var connected = 0

    struct Outcome {
        let echoes: UInt64
        let bytes: UInt64
        let seconds: Double
        let mismatches: UInt64
        let latencies: Histogram<UInt64>
    }

    /// A server that accepts slower than we connect would drop handshakes, which are repeated after a second; so few
    /// that no accept queue overflows are under way at a time.
    private static let burst = 1000

    init(
        connections: Int, to servers: ServerGroup, depth: Int = 1, sources: Int? = nil, settings: GrowthSettings
    ) throws {
        processes = try settings.generatorProcesses(for: connections)
        port = servers.port
        var options = crowd_options()
        options.port = port
        options.connection_count_max = UInt32(connections)
        options.process_count = UInt32(processes)
        options.source_count = UInt32(sources ?? Self.sources(for: connections))
        options.depth = UInt32(depth)
        options.cpu = settings.plan.generator ?? -1
        var started: OpaquePointer?
        let result = crowd_start(&started, &options)
        guard result == 0, let started else {
            throw BenchmarkFailure(
                "cannot start \(processes) generator processes: \(String(cString: strerror(-result)))")
        }
        crowd = started
    }

    deinit {
        crowd_end(crowd)
        load_samples_free(&samples)
    }

    /// Far fewer per address than it has ports: finding a free one is slow when most are taken.
    static func sources(for connections: Int) -> Int { min(200, max(2, connections / 5000)) }

    /// Opens further connections, and returns when the server has taken them from its accept queue.
    /// - Returns: The nanoseconds that took.
    @discardableResult
    func connect(_ count: Int) throws -> UInt64 {
        let begin = MonotonicClock.nanoseconds()
        var left = count
        while left > 0 {
            let some = min(left, Self.burst)
            var task = crowd_task()
            task.work = CROWD_CONNECT
            task.count = UInt32(some)
            try start(task)
            _ = try finish()
            try AcceptQueue.waitUntilEmpty(port: port)
            left -= some
        }
        connected += count
        return MonotonicClock.nanoseconds() - begin
    }

    /// Exactly so many echoes on every connection.
    func echo(_ count: Int, messageBytes: Int) throws -> Outcome {
        var task = crowd_task()
        task.work = CROWD_ECHO
        task.message_bytes = UInt32(messageBytes)
        task.echo_count_each = UInt64(count)
        try start(task)
        return try finish()
    }

    func start(_ task: crowd_task) throws {
        var task = task
        let result = crowd_begin(crowd, &task)
        guard result == 0 else {
            throw BenchmarkFailure("a generator process is gone: \(String(cString: strerror(-result)))")
        }
    }

    /// Waits for the task that was started.
    func finish() throws -> Outcome {
        var result = load_result()
        guard crowd_finish(crowd, &samples, &result) == 0 else {
            throw BenchmarkFailure(
                withUnsafeBytes(of: result.error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        var latencies = Latencies.empty()
        for latency in UnsafeBufferPointer(start: samples.ns, count: samples.count) {
            latencies.record(UInt64(latency))
        }
        return Outcome(
            echoes: result.echo_count, bytes: result.byte_count, seconds: Double(result.measured_ns) / 1e9,
            mismatches: result.mismatch_count, latencies: latencies)
    }
}
