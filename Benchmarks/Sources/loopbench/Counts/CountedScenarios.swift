// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

extension Scenario: ExpressibleByArgument {
    /// What thresholds hold for: one conversation, many, pipelining and bulk. A crowd costs per echo what many do.
    static let counted = all.filter { $0.connections <= 50 }

    /// `50/64/1`: connections, bytes of a message, messages in flight on each.
    init?(label: String) {
        let parts = label.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard parts.count == 3, parts.allSatisfy({ $0 >= 1 }), parts[0] <= 10_000 else { return nil }
        self.init(connections: parts[0], messageBytes: parts[1], depth: parts[2])
    }

    init?(argument: String) { self.init(label: argument) }

    var defaultValueDescription: String { label }
}
