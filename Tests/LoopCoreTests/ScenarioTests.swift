// SPDX-License-Identifier: Apache-2.0

import CLoopCore
import CSimulator
import Dispatch
import LoopCoreScenarios
import Testing

/// One scenario of the C core on one backend, in one size.
struct ScenarioCase: Sendable, CustomTestStringConvertible {
    enum Size: String, CaseIterable {
        /// The sizes a program gets that asks for nothing.
        case ordinary
        /// Rings, groups and batches so small that overflow is the ordinary path.
        case tiny
    }

    var index: Int
    var name: String
    var backend: lc_backend
    var size: Size

    var backendName: String { backend == LC_BACKEND_PROACTOR ? "proactor" : "selector" }
    var testDescription: String { "\(name) [\(backendName), \(size.rawValue)]" }

    static func all(on backend: lc_backend) -> [ScenarioCase] {
        (0..<loop_core_scenario_count()).filter { !unplayable.contains($0) }.flatMap { index in
            let name = String(cString: loop_core_scenario_at(index).pointee.name)
            return Size.allCases.map { ScenarioCase(index: index, name: name, backend: backend, size: $0) }
        }
    }

    /// Waits on a thread that the concurrency runtime does not need; the scenario brings its own to play on.
    func run() async -> String? {
        let index = index
        let backend = backend.rawValue
        let tiny = size == .tiny
        return await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                var failure = [CChar](repeating: 0, count: 1024)
                let result = loop_core_scenario_at(index).pointee.run(backend, tiny, &failure, failure.count)
                let text = String(decoding: failure.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                continuation.resume(returning: result == 0 ? nil : text)
            }
        }
    }
}

/// On the simulated kernel: scenarios that need the real one. They are named once, with the reasons.
private let unplayable: Set<Int> = {
    guard sim_is_process_wide() else { return [] }
    let needs = (0..<loop_core_scenario_count()).filter { loop_core_scenario_at($0).pointee.needs_real != nil }
    let names = needs.map { index in
        let scenario = loop_core_scenario_at(index).pointee
        return "\"\(String(cString: scenario.name))\" (\(String(cString: scenario.needs_real)))"
    }
    print("SKIPPED: \(needs.count) scenarios that need the real kernel: \(names.joined(separator: ", "))")
    return Set(needs)
}()

/// What this kernel says to io_uring, in words; empty if it offers it.
private let proactorRefusal: String = {
    let probe = lc_probe_get().pointee
    func text(_ characters: some Any) -> String {
        withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    guard probe.proactor_error != 0 else { return "" }
    let refusal = "io_uring is refused: \(text(probe.proactor_cause)); \(text(probe.proactor_advice))"
    print("SKIPPED: the core's scenarios on the completion backend. \(refusal)")
    return refusal
}()

/// The core through its C API: both backends, ordinary and tiny. Each scenario ends at zero: no operation, lease,
/// timer, stream or descriptor is left over. One at a time, so that their clocks mean something.
@Suite("C core", .serialized)
struct ScenarioTests {
    @Test("C core scenario on the selector", arguments: ScenarioCase.all(on: LC_BACKEND_SELECTOR))
    func selector(_ scenario: ScenarioCase) async {
        let failure = await scenario.run()
        #expect(failure == nil, "\(scenario.testDescription): \(failure ?? "")")
    }

    @Test(
        "C core scenario on the proactor",
        .enabled(if: proactorRefusal.isEmpty, Comment(rawValue: proactorRefusal)),
        arguments: ScenarioCase.all(on: LC_BACKEND_PROACTOR)
    )
    func proactor(_ scenario: ScenarioCase) async {
        let failure = await scenario.run()
        #expect(failure == nil, "\(scenario.testDescription): \(failure ?? "")")
    }

    @Test("Every scenario has a name of its own")
    func names() {
        let names = (0..<loop_core_scenario_count()).map { String(cString: loop_core_scenario_at($0).pointee.name) }
        #expect(Set(names).count == names.count)
        #expect(loop_core_scenario_at(loop_core_scenario_count()) == nil)
    }
}
