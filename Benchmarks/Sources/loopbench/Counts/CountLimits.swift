// SPDX-License-Identifier: Apache-2.0

/// What an echo through the library may cost.
enum CountLimits {
    /// Steady state allocates nothing; a timer or a log line now and then stays far below this.
    static let mallocsMax = 0.01
    /// As many kernel entries as the floor.
    static let entriesRatioMax = 1.10
    /// With one connection every entry is one that an echo needs, and counts are exact. With many, entries are shared,
    /// and how many echoes share one differs from run to run, also for the floor: between 20 and 50 of 50 were seen.
    static func entriesSlack(connections: Int) -> Double { connections == 1 ? 0 : 0.03 }

    /// One sentence for every count over its limit, and for every server that could not be counted: a loop whose
    /// floor is missing was not checked.
    static func complaints(about counts: [Contender: EchoCounts], connections: Int) -> [String] {
        Contender.ours.flatMap { contender -> [String] in
            guard let own = counts[contender] else { return [] }
            if let failure = own.failure { return ["\(contender.rawValue) could not be counted: \(failure)"] }
            if contender.isFloor { return [] }
            return [
                mallocs(contender, own.mallocs),
                entries(
                    contender, own.kernelEntries, floor: counts[contender.floor]?.kernelEntries,
                    slack: entriesSlack(connections: connections)),
            ].compactMap { $0 }
        }
    }

    private static func mallocs(_ contender: Contender, _ count: Double?) -> String? {
        guard let count, count >= mallocsMax else { return nil }
        return "\(contender.rawValue): \(Format.fixed(count, 3)) mallocs per echo, limit \(mallocsMax)"
    }

    private static func entries(_ contender: Contender, _ count: Double?, floor: Double?, slack: Double) -> String? {
        guard let count, let floor else { return nil }
        let limit = floor * entriesRatioMax + slack
        guard count > limit else { return nil }
        let figures = "\(Format.fixed(count, 3)) kernel entries per echo, limit \(Format.fixed(limit, 3))"
        return "\(contender.rawValue): \(figures)"
    }
}
