// SPDX-License-Identifier: Apache-2.0

/// What two builds did in the same rounds.
struct Pairs {
    var own = Results()
    var other = Results()

    var mismatched: [Measurement] { own.mismatched + other.mismatched }

    /// This build's figure over the other's, round by round; a round that one of them failed in is left out.
    func ratio(
        _ scenario: Scenario, _ contender: Contender, of metric: (Measurement.Figures) -> Double
    ) -> Spread? {
        Spread(ratios(scenario, contender, of: metric))
    }

    /// In how many of how many rounds this build's figure was the larger one.
    func won(
        _ scenario: Scenario, _ contender: Contender, by metric: (Measurement.Figures) -> Double
    ) -> (rounds: Int, of: Int) {
        let ratios = ratios(scenario, contender, of: metric)
        return (ratios.count { $0 > 1 }, ratios.count)
    }

    private func ratios(
        _ scenario: Scenario, _ contender: Contender, of metric: (Measurement.Figures) -> Double
    ) -> [Double] {
        let others = other.figures(scenario, contender)
        return own.figures(scenario, contender).compactMap { round, figures in
            others[round].map { metric(figures) / metric($0) }
        }
    }

    /// Who is first changes from round to round, so that neither build always meets the warmer machine.
    static func measured(_ schedule: Schedule, otherBuild: String, _ plan: CPUPlan) -> Pairs {
        let generator = Generator()
        var pairs = Pairs()
        for round in 1...schedule.rounds {
            for scenario in schedule.scenarios {
                for contender in schedule.contenders {
                    for build in round.isMultiple(of: 2) ? [nil, otherBuild] : [otherBuild, nil] {
                        let (measurement, latencies) = schedule.measure(
                            round, scenario, contender, build: build, generator, plan)
                        if build == nil {
                            pairs.own.add(measurement, latencies: latencies)
                        } else {
                            pairs.other.add(measurement, latencies: latencies)
                        }
                        schedule.report(measurement, build: build == nil ? "this build" : "the other")
                    }
                }
            }
        }
        return pairs
    }
}
