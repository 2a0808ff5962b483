// SPDX-License-Identifier: Apache-2.0

import Histogram
import LoadGenerator

/// The load generator of the C target, with its sample memory kept from run to run.
final class Generator {
    private var samples = load_samples()

    deinit {
        load_samples_free(&samples)
    }

    /// How long a run lasts: by the clock, or by the number of echoes on each connection. In waves, every connection
    /// sends all its messages, everything comes back, and the server sleeps before the next wave.
    enum Extent {
        case time(warmup: Duration, measured: Duration)
        case echoes(Int)
        case waves(Int)
    }

    struct Outcome {
        let echoes: UInt64
        let measuredNanoseconds: UInt64
        let mismatches: UInt64
        let serverNanoseconds: UInt64
        let latencies: Histogram<UInt64>
        /// Waves of which the server saw a part before the rest was sent.
        let disturbedWaves: UInt64
    }

    /// Runs one scenario on the calling thread.
    /// - Throws: ``BenchmarkFailure`` when a connection could not be made or broke, or the server fell silent.
    func run(_ scenario: Scenario, for extent: Extent, against server: ServerProcess, cpu: Int32?) throws -> Outcome {
        var options = load_options()
        options.port = server.port
        options.connection_count = UInt32(scenario.connections)
        options.message_bytes = UInt32(scenario.messageBytes)
        options.depth = UInt32(scenario.depth)
        options.cpu = cpu ?? -1
        options.server_pid = server.identifier
        switch extent {
        case .time(let warmup, let measured):
            options.warmup_ns = warmup.nanoseconds
            options.measure_ns = measured.nanoseconds
        case .echoes(let count):
            options.echo_count_each = UInt64(count)
        case .waves(let count):
            options.echo_count_each = UInt64(count * scenario.depth)
            options.lockstep = true
        }

        var result = load_result()
        guard load_run(&options, &samples, &result) == 0 else {
            throw BenchmarkFailure(
                withUnsafeBytes(of: result.error) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return Outcome(
            echoes: result.echo_count,
            measuredNanoseconds: result.measured_ns,
            mismatches: result.mismatch_count,
            serverNanoseconds: result.server_cpu_ns,
            latencies: histogram(),
            disturbedWaves: result.disturbed_count
        )
    }

    private func histogram() -> Histogram<UInt64> {
        var histogram = Latencies.empty()
        for latency in UnsafeBufferPointer(start: samples.ns, count: samples.count) {
            histogram.record(UInt64(latency))
        }
        return histogram
    }
}

extension Duration {
    fileprivate var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds) / 1_000_000_000
    }
}
