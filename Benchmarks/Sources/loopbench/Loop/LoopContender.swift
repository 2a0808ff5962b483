// SPDX-License-Identifier: Apache-2.0
//
// LoopContender.swift: whose loops are measured, and which program measures each.

import Glibc
import LoopMeasuring

/// Whose loop. The raw value is its name in tables and JSON.
enum LoopContender: String, CaseIterable, Codable {
    case selector
    case proactor
    /// SwiftNIO by its usual calls: `execute`, `scheduleTask`, and actors on an event loop's executor.
    case nio
    /// SwiftNIO's `scheduleCallback`, which makes no promise and so allocates less.
    case nioCallback = "nio callback"
    /// SwiftNIO's event loops installed as Swift's global executor.
    case nioTakeover = "nio takeover"
    case globalExecutor = "global executor"

    static let ours = [LoopContender.selector, .proactor]

    /// Who has what `subject` asks for.
    static func all(for subject: Subject) -> [LoopContender] {
        switch subject {
        case .timerPair, .timerRearm, .timerSchedule, .timerCancel, .timerFire: ours + [.nio, .nioCallback]
        case .callSoon, .callThreadsafe, .callLatency, .idle: ours + [.nio]
        case .spawn, .awaitResume, .actorCall: ours + [.nio, .nioTakeover, .globalExecutor]
        case .sleep: ours + [.nio, .globalExecutor]
        }
    }

    func command(_ configuration: LoopConfiguration, seconds: Double) throws -> [String] {
        let program =
            switch self {
            case .selector, .proactor, .globalExecutor: [try Programs.beside("loopbench"), "loop-worker"]
            case .nio, .nioCallback, .nioTakeover: [try Self.nioProgram()]
            }
        return program + [
            "--subject", configuration.subject.rawValue, "--contender", rawValue,
            "--pending", "\(configuration.pending)", "--threads", "\(configuration.threads)",
            "--seconds", "\(seconds)",
        ]
    }

    /// Where the peer's program is: beside this one, or where its package builds it.
    private static func nioProgram() throws -> String {
        let package = "Peers/NIO"
        let beside = try Programs.directory()
        // .build/<platform>/release, from there three up to the package.
        let candidates = [
            beside + "/nio-loop",
            beside + "/../../peers/nio-loop",
            beside + "/../../../\(package)/.build/release/nio-loop",
            "\(package)/.build/release/nio-loop",
        ]
        guard let program = candidates.first(where: { access($0, X_OK) == 0 }) else {
            throw BenchmarkFailure("nio-loop is not built: swift build -c release --package-path \(package)")
        }
        return program
    }
}

/// What is measured, under which circumstances.
struct LoopConfiguration: Codable, Hashable {
    let subject: Subject
    var pending = 0
    var threads = 1

    static func all(quick: Bool) -> [LoopConfiguration] {
        Subject.allCases.flatMap { subject -> [LoopConfiguration] in
            switch subject {
            case _ where subject.isTimer:
                (quick ? [1000, 100_000] : [1, 1000, 100_000, 1_000_000]).map {
                    LoopConfiguration(subject: subject, pending: $0)
                }
            case .callThreadsafe: [1, 8].map { LoopConfiguration(subject: subject, threads: $0) }
            default: [LoopConfiguration(subject: subject)]
            }
        }
    }

    var label: String {
        let pending = subject.isTimer ? ", \(Format.fixed(Double(pending), 0)) pending" : ""
        let threads = subject == .callThreadsafe ? ", \(threads) thread\(threads == 1 ? "" : "s")" : ""
        return subject.rawValue + pending + threads
    }
}
