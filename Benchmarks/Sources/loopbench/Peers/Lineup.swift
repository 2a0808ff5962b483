// SPDX-License-Identifier: Apache-2.0

/// A peer that was asked for and cannot take part.
struct AbsentPeer: Codable {
    let contender: Contender
    let reason: String
}

/// Who takes part of those that were asked for, and who does not.
struct Lineup {
    let present: [Contender]
    let absent: [AbsentPeer]
    /// By contender's name.
    let versions: [String: String]

    /// The folders matter only when a peer was chosen.
    init(_ chosen: [Contender], folders: @autoclosure () throws -> PeerFolders = try .ofThisPackage()) throws {
        guard chosen.contains(where: { $0.peer != nil }) else {
            (present, absent, versions) = (chosen, [], [:])
            return
        }
        let folders = try folders()
        let absent = chosen.compactMap { contender in
            contender.peer?.absence(in: folders).map { AbsentPeer(contender: contender, reason: $0) }
        }
        self.absent = absent
        present = chosen.filter { contender in !absent.contains { $0.contender == contender } }
        versions = Dictionary(
            uniqueKeysWithValues: present.compactMap { contender in
                contender.peer?.version(in: folders).map { (contender.rawValue, $0) }
            })
    }
}
