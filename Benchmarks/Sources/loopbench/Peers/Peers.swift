// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `loopbench peers`: which servers of other libraries can take part here, and how they are got.
struct Peers: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lists the servers of other libraries; fetches and builds them with --install.",
        discussion: """
            Packages come from Debian and PyPI, SwiftNIO from where the package manager finds it. What cannot be had \
            is named with its reason, and the others go on.
            """
    )

    @Flag(help: "Fetch what is missing and build all of them.")
    var install = false

    @Option(help: ArgumentHelp("Only these, with commas between.", valueName: "names"))
    var only: String?

    func validate() throws { _ = try chosen() }

    func run() throws {
        let contenders = try chosen()
        let folders = try PeerFolders.ofThisPackage()
        if install { try PeerInstaller(folders: folders).install(contenders.compactMap(\.peer)) }
        PeersTable(contenders: contenders, folders: folders).lines().forEach { print($0) }
    }

    private func chosen() throws -> [Contender] {
        let contenders = try only.map(Choices.contenders) ?? Contender.peers
        if let own = contenders.first(where: { $0.peer == nil }) {
            throw ValidationError("\(own.rawValue) is not a peer.")
        }
        return contenders
    }
}

/// One row for each peer: there or not, and the way to it.
struct PeersTable {
    let contenders: [Contender]
    let folders: PeerFolders

    func lines() -> [String] {
        var table = Table(header: ["peer", "version", "here", "needs"], leftAligned: [0, 1, 2, 3])
        for contender in contenders {
            guard let peer = contender.peer else { continue }
            let needs = peer.needs.map { $0.package } + (contender == .uvloop ? ["uvloop from PyPI"] : [])
            table.add([
                contender.rawValue,
                peer.version(in: folders) ?? "-",
                peer.absence(in: folders) ?? "yes",
                needs.isEmpty ? "only Swift" : needs.joined(separator: " "),
            ])
        }
        return table.lines()
    }
}
