// SPDX-License-Identifier: Apache-2.0

/// What an echo through the library may cost.
enum CountLimits {
    /// Steady state allocates nothing; a timer or a log line now and then stays far below this.
    static let mallocsMax = 0.01
    /// As many kernel entries as the floor, but for batches that fall differently.
    static let entriesRatioMax = 1.10
    static let entriesSlack = 0.02

    /// One sentence for every count over its limit, and for every server that could not be counted: a loop whose
    /// floor is missing was not checked.
    static func complaints(about counts: [Contender: EchoCounts]) -> [String] {
        Contender.allCases.flatMap { contender -> [String] in
            guard let own = counts[contender] else { return [] }
            if let failure = own.failure { return ["\(contender.rawValue) could not be counted: \(failure)"] }
            if contender.isFloor { return [] }
            return [
                mallocs(contender, own.mallocs),
                entries(contender, own.kernelEntries, floor: counts[contender.floor]?.kernelEntries),
            ].compactMap { $0 }
        }
    }

    private static func mallocs(_ contender: Contender, _ count: Double?) -> String? {
        guard let count, count >= mallocsMax else { return nil }
        return "\(contender.rawValue): \(Format.fixed(count, 3)) mallocs per echo, limit \(mallocsMax)"
    }

    private static func entries(_ contender: Contender, _ count: Double?, floor: Double?) -> String? {
        guard let count, let floor else { return nil }
        let limit = floor * entriesRatioMax + entriesSlack
        guard count > limit else { return nil }
        let figures = "\(Format.fixed(count, 3)) kernel entries per echo, limit \(Format.fixed(limit, 3))"
        return "\(contender.rawValue): \(figures)"
    }
}
