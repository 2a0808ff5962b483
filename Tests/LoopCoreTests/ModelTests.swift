// SPDX-License-Identifier: Apache-2.0

import CLoopCore
import Dispatch
import LoopModel
import Testing

/// One seed of the model on one backend.
struct ModelCase: Sendable, CustomTestStringConvertible {
    var seed: UInt64
    var backend: lc_backend
    var tiny = false
    var simulated = false

    var testDescription: String {
        "seed \(seed)\(tiny ? ", tiny" : "") [\(backend == LC_BACKEND_PROACTOR ? "proactor" : "selector")]"
    }

    static func all(_ seeds: ClosedRange<UInt64>, simulated: Bool = false) -> [ModelCase] {
        [LC_BACKEND_SELECTOR, LC_BACKEND_PROACTOR].flatMap { backend in
            seeds.map { ModelCase(seed: $0, backend: backend, tiny: $0 % 4 == 0, simulated: simulated) }
        }
    }

    /// Waits on a thread that the concurrency runtime does not need; the run brings its own to play on.
    func run(_ focus: model_focus, steps: UInt32) async -> (failure: String?, report: model_report) {
        let (seed, backend, tiny, simulated) = (seed, backend.rawValue, tiny, simulated)
        return await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                var config = model_config()
                config.seed = seed
                config.steps = steps
                config.backend = backend
                config.tiny = tiny
                config.simulated = simulated
                config.focus = focus
                var report = model_report()
                let result = model_run(&config, &report)
                let text = withUnsafeBytes(of: report.failure) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                continuation.resume(returning: (result == 0 ? nil : text, report))
            }
        }
    }
}

private let proactorIsThere = lc_probe_get().pointee.proactor_error == 0

/// Random sequences of operations on the C API, on the real kernel: each answer is held against a model, and each run
/// ends at zero. `make fuzz` plays seeds nobody has seen; these are always the same.
@Suite("Model", .serialized)
struct ModelTests {
    /// Plays each seed, says which failed, and returns what all of them met together.
    private func play(_ cases: [ModelCase], _ focus: model_focus, steps: UInt32) async -> [model_report] {
        var reports: [model_report] = []
        for one in cases where proactorIsThere || one.simulated || one.backend == LC_BACKEND_SELECTOR {
            let (failure, report) = await one.run(focus, steps: steps)
            #expect(failure == nil, "\(one.testDescription), \(steps) steps: \(failure ?? "")")
            reports.append(report)
        }
        return reports
    }

    private func sum(_ reports: [model_report], _ counter: KeyPath<model_report, UInt64>) -> UInt64 {
        reports.reduce(0) { $0 + $1[keyPath: counter] }
    }

    @Test("F79 random operations against a model")
    func anything() async {
        let reports = await play(ModelCase.all(1...24), MODEL_FOCUS_ANY, steps: 800)
        // A model that meets nothing proves nothing.
        let met: [(String, KeyPath<model_report, UInt64>)] = [
            ("bytes received", \.bytes_in), ("bytes sent", \.bytes_out), ("waits answered", \.waits_answered),
            ("waits that ended with a release", \.waits_released), ("cancels that met data", \.cancels_that_met_data),
            ("cancels that came too late", \.cancels_too_late), ("connections accepted", \.accepted),
            ("connections made", \.connected), ("connections refused", \.refused), ("resets", \.resets),
            ("connections that broke", \.broken), ("polite closes", \.polite_closes),
            ("sends that arrived whole", \.whole_deliveries), ("releases elsewhere", \.releases_elsewhere),
            ("descriptors given away and taken back", \.given_away),
            ("leases held", \.leases_held), ("leases returned elsewhere", \.leases_returned_elsewhere),
            ("leases sent back", \.leases_sent_back),
            ("timers", \.timers_fired), ("posts", \.posts), ("polls", \.polls),
            ("loops closed with work in flight", \.closes_with_work),
            ("waits ended by a close", \.waits_ended_by_close),
        ]
        for (what, counter) in met { #expect(sum(reports, counter) > 0, "no run met any \(what)") }
    }

    @Test("F18 cancel races with completion")
    func cancels() async {
        let reports = await play(ModelCase.all(101...106), MODEL_FOCUS_CANCELS, steps: 600)
        #expect(sum(reports, \.cancels_that_met_data) > 50)
        #expect(sum(reports, \.cancels_too_late) > 50)
        #expect(sum(reports, \.bytes_in) > 100_000)
    }

    @Test("F31 timers in random order, half of them cancelled")
    func timers() async {
        let reports = await play(ModelCase.all(201...204), MODEL_FOCUS_TIMERS, steps: 600)
        #expect(sum(reports, \.timers_fired) > 200)
        #expect(sum(reports, \.timers_cancelled) > 200)
    }
}

/// A case that only the simulated kernel has found, over seeds 1 to 200.
private func found(
    _ body: @escaping @Sendable (UInt64, UInt32, UnsafeMutablePointer<CChar>, Int) -> Int32, on backend: UInt32
) async -> String? {
    await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
            var text = [CChar](repeating: 0, count: 256)
            for seed in UInt64(1)...200 where body(seed, backend, &text, text.count) != 0 {
                let failure = String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                continuation.resume(returning: "seed \(seed): \(failure)")
                return
            }
            continuation.resume(returning: nil)
        }
    }
}

/// The same model on the kernel in memory, which does at will what Linux does at odd moments. A seed decides everything
/// here, so what fails fails again: `make fuzz KERNEL=simulated SEED=...`.
@Suite("Simulator", .serialized)
struct SimulatorTests {
    @Test(
        "F79 random operations on the simulated kernel",
        arguments: [LC_BACKEND_SELECTOR.rawValue, LC_BACKEND_PROACTOR.rawValue])
    func anything(backend: UInt32) async {
        for one in ModelCase.all(1...40, simulated: true) where one.backend.rawValue == backend {
            let (failure, _) = await one.run(MODEL_FOCUS_ANY, steps: 1500)
            #expect(failure == nil, "\(one.testDescription): \(failure ?? "")")
        }
    }

    /// A receive on a socket that connects took the error away, and the connect looked like a success.
    @Test(
        "F55 a receive that waits leaves a connect its error",
        arguments: [LC_BACKEND_SELECTOR.rawValue, LC_BACKEND_PROACTOR.rawValue])
    func connectError(backend: UInt32) async {
        let failure = await found(model_found_connect_error, on: backend)
        #expect(failure == nil)
    }

    /// K20: a send that the ring goes on with by itself met the reset, and the reader saw an end in its place.
    @Test(
        "F6 a reset that a send under way met is no end to the reader",
        arguments: [LC_BACKEND_SELECTOR.rawValue, LC_BACKEND_PROACTOR.rawValue])
    func cutShort(backend: UInt32) async {
        let failure = await found(model_found_cut_short, on: backend)
        #expect(failure == nil)
    }

    /// K3: the answer that the kernel does not know the receive came behind the cancel, and was taken for an error.
    @Test(
        "N9 a descriptor can leave before the kernel refuses its receive",
        arguments: [LC_BACKEND_SELECTOR.rawValue, LC_BACKEND_PROACTOR.rawValue])
    func leftEarly(backend: UInt32) async {
        let failure = await found(model_found_left_early, on: backend)
        #expect(failure == nil)
    }
}
