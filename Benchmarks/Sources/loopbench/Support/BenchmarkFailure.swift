// SPDX-License-Identifier: Apache-2.0

/// Why a server or a measurement did not work, in a sentence for the reader of the report.
struct BenchmarkFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
