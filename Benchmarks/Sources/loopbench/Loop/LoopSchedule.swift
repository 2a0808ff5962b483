// SPDX-License-Identifier: Apache-2.0
//
// LoopSchedule.swift: the order of measurements, each in a fresh process.

import LoopMeasuring

/// Counts first, once, with the counting library preloaded; then the timed rounds, interleaved as those of `run`.
struct LoopSchedule {
    let configurations: [LoopConfiguration]
    let contenders: [LoopContender]
    let rounds: Int
    let seconds: Double
    let plan: CPUPlan

    /// What a measurement may take beyond its time: a million timers, set and cancelled by a linear search.
    private static let secondsSlack = 60

    func run() -> [LoopSample] {
        var samples: [LoopSample] = []
        let counted = counts()
        for round in 1...rounds {
            for configuration in configurations {
                for contender in all(configuration).shuffled() {
                    let timed = measure(configuration, contender, seconds: seconds, environment: [])
                    let counts = counted[configuration]?[contender] ?? Figures()
                    samples.append(LoopSample(configuration, contender, round: round, timed, counted: counts))
                    report(round, configuration, contender, timed)
                }
            }
        }
        return samples
    }

    private func all(_ configuration: LoopConfiguration) -> [LoopContender] {
        LoopContender.all(for: configuration.subject).filter(contenders.contains)
    }

    private func counts() -> [LoopConfiguration: [LoopContender: Figures]] {
        guard let library = try? Programs.beside("libAllocationCounter.so") else {
            printToStandardError("libAllocationCounter.so is missing, so mallocs and eventfd writes are not counted")
            return [:]
        }
        var counted: [LoopConfiguration: [LoopContender: Figures]] = [:]
        for configuration in configurations where configuration.subject != .idle && configuration.subject != .sleep {
            for contender in all(configuration) {
                counted[configuration, default: [:]][contender] = measure(
                    configuration, contender, seconds: min(seconds, 0.2), environment: ["LD_PRELOAD=\(library)"])
            }
        }
        return counted
    }

    private func measure(
        _ configuration: LoopConfiguration, _ contender: LoopContender, seconds: Double, environment: [String]
    ) -> Figures {
        do {
            // Idleness takes time to show.
            let seconds = configuration.subject == .idle ? seconds * 10 : seconds
            let line = try LineProcess.run(
                try contender.command(configuration, seconds: seconds), cpu: cpu(configuration),
                environment: environment, secondsMax: Int(seconds * 10) + Self.secondsSlack)
            return try Figures(line: line)
        } catch {
            return Figures(failure: "\(error)")
        }
    }

    /// One CPU for what is one thread's work; what is about several threads needs them all.
    private func cpu(_ configuration: LoopConfiguration) -> Int32? {
        configuration.subject.isTimer || configuration.subject == .callSoon ? plan.server : nil
    }

    private func report(
        _ round: Int, _ configuration: LoopConfiguration, _ contender: LoopContender, _ figures: Figures
    ) {
        let what = "round \(round)/\(rounds)  \(configuration.label)  \(contender.rawValue)"
        if let failure = figures.failure { return printToStandardError("\(what)  failed: \(failure)") }
        let found =
            configuration.subject == .idle
            ? "\(figures.voluntarySwitches ?? 0) voluntary switches"
            : "\(Format.fixed(figures.nanosecondsPerOperation, 1)) ns"
        printToStandardError("\(what)  \(found)")
    }
}
