// SPDX-License-Identifier: Apache-2.0

/// Median and range of a handful of values.
struct Spread {
    let median: Double
    let min: Double
    let max: Double

    /// nil for no values at all, rather than a zero that looks like a result.
    init?(_ values: [Double]) {
        let sorted = values.sorted()
        guard let min = sorted.first, let max = sorted.last else { return nil }
        let middle = sorted.count / 2
        median = sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
        self.min = min
        self.max = max
    }
}
