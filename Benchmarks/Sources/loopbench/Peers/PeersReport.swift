// SPDX-License-Identifier: Apache-2.0

/// How the loops compare with the peers: a second table below each scenario's.
struct PeersReport {
    private static let measures: [Contender] = [.proactorAsync, .selectorAsync]

    let results: Results
    let contenders: [Contender]

    private var peers: [Contender] { contenders.filter { $0.peer != nil } }
    private var loops: [Contender] { Self.measures.filter(contenders.contains) }

    var isEmpty: Bool { peers.isEmpty || loops.isEmpty }

    /// Within each round, then median and range, as all ratios are. Above 1 the loop is ahead, in either column.
    func lines(_ scenario: Scenario) -> [String] {
        var table = Table(
            header: ["times ahead of"] + loops.flatMap { ["\($0.rawValue): rate", "\($0.rawValue): CPU"] })
        for peer in peers {
            table.add(
                [peer.rawValue]
                    + loops.flatMap { loop in
                        [
                            Format.ratio(results.ratio(scenario, loop, to: peer) { $0.requestsPerSecond }),
                            Format.ratio(
                                results.ratio(scenario, peer, to: loop) { $0.serverMicrosecondsPerRequest }),
                        ]
                    })
        }
        return table.lines()
    }
}
