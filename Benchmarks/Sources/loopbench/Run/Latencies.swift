// SPDX-License-Identifier: Apache-2.0

import Histogram

/// The three percentiles of a report, in nanoseconds.
struct Latencies: Codable {
    let p50: UInt64?
    let p99: UInt64?
    let p999: UInt64?

    /// A percentile needs about ten samples beyond it to mean something; with fewer it is left out.
    init(_ histogram: Histogram<UInt64>) {
        func percentile(_ percentile: Double, atLeast count: UInt64) -> UInt64? {
            histogram.totalCount >= count ? histogram.valueAtPercentile(percentile) : nil
        }
        p50 = percentile(50, atLeast: 20)
        p99 = percentile(99, atLeast: 1_000)
        p999 = percentile(99.9, atLeast: 10_000)
    }

    /// The generator's samples saturate at 32 bits, about 4.3 seconds.
    static func empty() -> Histogram<UInt64> {
        Histogram<UInt64>(highestTrackableValue: UInt64(UInt32.max), numberOfSignificantValueDigits: .three)
    }
}
