// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Everything measured, for other tools. Names carry their units.
struct RawResults: Codable {
    let machine: Machine
    /// How to get the like of it.
    var command: String?
    /// What the peers that took part were built from, by their names.
    let peerVersions: [String: String]
    let absentPeers: [AbsentPeer]
    let measurements: [Measurement]

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
    }
}
