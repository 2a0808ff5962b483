// SPDX-License-Identifier: Apache-2.0

/// The table of `loopbench counts`.
struct CountsReport {
    let counts: [Contender: EchoCounts]

    func lines() -> [String] {
        var table = Table(
            header: ["contender", "mallocs/echo", "kernel entries/echo", "/ floor", "by name"],
            leftAligned: [0, 4]
        )
        for contender in Contender.ours {
            let own = counts[contender]
            table.add([
                contender.rawValue,
                Format.fixed(own?.mallocs, 3),
                Format.fixed(own?.kernelEntries, 3),
                contender.isFloor ? "" : Format.fixed(ratioToFloor(contender), 2),
                byName(own?.syscalls ?? [:]),
            ])
        }
        return table.lines() + failures
    }

    private func ratioToFloor(_ contender: Contender) -> Double? {
        guard let own = counts[contender]?.kernelEntries, let floor = counts[contender.floor]?.kernelEntries else {
            return nil
        }
        return own / floor
    }

    /// The dearest first; what rounds to nothing is left out.
    private func byName(_ syscalls: [String: Double]) -> String {
        syscalls.filter { $0.value.magnitude >= 0.0005 }
            .sorted { ($0.value, $1.key) > ($1.value, $0.key) }
            .map { "\($0.key) \(Format.fixed($0.value, 3))" }
            .joined(separator: ", ")
    }

    private var failures: [String] {
        Contender.ours.compactMap { contender in
            counts[contender]?.failure.map { "\(contender.rawValue): \($0)" }
        }
    }
}
