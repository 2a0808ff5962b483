// SPDX-License-Identifier: Apache-2.0

/// The table of `loopbench counts`.
struct CountsReport {
    let counts: [Contender: EchoCounts]

    func lines() -> [String] {
        var table = Table(
            header: [
                "contender", "mallocs", "entries", "/ floor", "instructions", "/ floor", "retains", "releases",
                "sleeps", "completions/entry", "entries/tick", "system calls",
            ],
            leftAligned: [0, 11]
        )
        for contender in Contender.ours {
            let own = counts[contender]
            table.add([
                contender.rawValue,
                Format.fixed(own?.mallocs, 3),
                Format.fixed(own?.kernelEntries, 3),
                ratioToFloor(contender, \.kernelEntries),
                instructions(own?.instructions),
                ratioToFloor(contender, \.instructions),
                Format.fixed(own?.retains, 2),
                Format.fixed(own?.releases, 2),
                Format.fixed(own?.contextSwitches, 3),
                Format.fixed(own?.completionsPerEntry, 2),
                Format.fixed(own?.entriesPerTick, 2),
                byName(own?.notableSyscalls ?? [:]),
            ])
        }
        return table.lines() + failures
    }

    /// With pipelining an echo costs but a few.
    private func instructions(_ count: Double?) -> String {
        Format.fixed(count, count ?? 0 < 100 ? 1 : 0)
    }

    private func ratioToFloor(_ contender: Contender, _ count: KeyPath<EchoCounts, Double?>) -> String {
        if contender.isFloor { return "" }
        guard let own = counts[contender]?[keyPath: count], let floor = counts[contender.floor]?[keyPath: count] else {
            return Format.fixed(nil, 2)
        }
        return Format.fixed(own / floor, 2)
    }

    /// The dearest first.
    private func byName(_ syscalls: [String: Double]) -> String {
        syscalls.sorted { ($0.value, $1.key) > ($1.value, $0.key) }
            .map { "\($0.key) \(Format.fixed($0.value, 3))" }
            .joined(separator: ", ")
    }

    private var failures: [String] {
        Contender.ours.compactMap { contender in
            counts[contender]?.failure.map { "\(contender.rawValue): \($0)" }
        }
    }
}
