// SPDX-License-Identifier: Apache-2.0

/// One shape of load: how many connections, how large a message, how many of them in flight on each connection.
struct Scenario: Codable, Hashable {
    let connections: Int
    let messageBytes: Int
    let depth: Int

    /// One conversation, many, a crowd, pipelining, and bulk.
    static let all = [
        Scenario(connections: 1, messageBytes: 64, depth: 1),
        Scenario(connections: 50, messageBytes: 64, depth: 1),
        Scenario(connections: 1000, messageBytes: 64, depth: 1),
        Scenario(connections: 50, messageBytes: 64, depth: 32),
        Scenario(connections: 50, messageBytes: 16384, depth: 1),
    ]

    var title: String {
        let plural = connections == 1 ? "connection" : "connections"
        return "\(connections) \(plural) x \(messageBytes) bytes x depth \(depth)"
    }

    /// As short as a progress line wants it.
    var label: String { "\(connections)/\(messageBytes)/\(depth)" }
}
