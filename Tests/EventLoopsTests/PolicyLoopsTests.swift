// SPDX-License-Identifier: Apache-2.0
//
// PolicyLoopsTests.swift: the two loops there are, and a loop for the length of a program.

import EventLoops
import TestSupportC
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct PolicyLoopsTests {
    @Test(
        "S5 a selector loop can be made with a selector of one's choice",
        arguments: [
            (LoopOptions.Selector.epoll, "epoll"), (.poll, "poll"), (.select, "select"),
        ])
    func selectorOfChoice(_ selector: LoopOptions.Selector, _ backend: String) async throws {
        try await onThread {
            var options = LoopOptions.forTests
            options.selector = selector
            let loop = try SelectorLoop(options: options)
            defer { try? loop.close() }
            #expect(loop.backend == backend)
            #expect(loop.selection.kind == .selector && loop.selection.source == .argument)
            let result = try loop.run {
                try await loop.sleep(for: .milliseconds(1))
                return 42
            }
            #expect(result == 42)
        }
    }

    @Test("S6 by itself, a selector loop takes the most efficient selector")
    func mostEfficientSelector() throws {
        let loop = try SelectorLoop(options: .forTests)
        defer { try? loop.close() }
        #expect(loop.backend == "epoll")
    }

    @Test(
        "S7 pipes, terminals and event counters can be waited for", .realKernel("terminals"),
        arguments: LoopKind.available)
    func pollableDescriptors(_ kind: LoopKind) async throws {
        try await onThread {
            try Loops.run(on: kind.choice, options: .forTests) { loop in
                var ends: [Int32] = [-1, -1]
                try #require(pipe(&ends) == 0)
                defer { for end in ends { close(end) } }
                try await loop.writable(ends[1])
                var byte: UInt8 = 7
                try loop.callSoon { #expect(write(ends[1], &byte, 1) == 1) }
                try await loop.readable(ends[0])
                #expect(read(ends[0], &byte, 1) == 1)

                let counter = test_eventfd(0)
                defer { close(counter) }
                try #require(counter >= 0)
                try await loop.writable(counter)
                var one: UInt64 = 1
                try loop.callSoon { #expect(write(counter, &one, 8) == 8) }
                try await loop.readable(counter)

                let terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY)
                try #require(terminal >= 0)
                defer { close(terminal) }
                try await loop.writable(terminal)
            }
        }
    }

    @Test("S7 regular files and directories cannot be waited for", arguments: LoopKind.available)
    func descriptorsWithoutReadiness(_ kind: LoopKind) async throws {
        try await onThread {
            try Loops.run(on: kind.choice, options: .forTests) { loop in
                for path in ["/proc/self/exe", "/"] {
                    let descriptor = open(path, O_RDONLY)
                    try #require(descriptor >= 0)
                    defer { close(descriptor) }
                    await #expect(throws: LoopError.notPollable(descriptor: descriptor)) {
                        try await loop.readable(descriptor)
                    }
                    await #expect(throws: LoopError.notPollable(descriptor: descriptor)) {
                        try await loop.writable(descriptor)
                    }
                }
            }
        }
    }

    @Test("S8 both loops have the same surface, waiting for descriptors included", arguments: LoopKind.available)
    func sameSurface(_ kind: LoopKind) async throws {
        try await onThread {
            let loop: any Loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(loop.selection.kind == kind && loop.selection.source == .argument)
            #expect((loop.backend == "io_uring") == (kind == .proactor))
            var order: [String] = []
            try loop.callLater(.milliseconds(1)) { order.append("later") }
            try loop.callSoon { order.append("soon") }.cancel()
            try loop.callSoon { order.append("soon") }
            try loop.callSoonThreadsafe {}
            try loop.runUntilIdle()
            #expect(order == ["soon", "later"])
            let sum = try loop.run {
                #expect(loop.isOnLoop && loop.isRunning)
                let child = loop.spawn { 40 }
                try await loop.sleep(for: .milliseconds(1))
                let counter = test_eventfd(2)
                defer { close(counter) }
                try await loop.readable(counter)
                var count: UInt64 = 0
                #expect(read(counter, &count, 8) == 8)
                return try await child.value + Int(count)
            }
            #expect(sum == 42)
        }
    }

    @Test("S9 the probe and the initialiser of ProactorLoop agree")
    func probeAgrees() async throws {
        try await onThread {
            switch ProactorLoop.probe() {
            case .ok(let features):
                let loop = try ProactorLoop()
                defer { try? loop.close() }
                #expect(loop.features == features)
            case .denied(let unavailability):
                #expect(throws: LoopError.unavailable(unavailability)) { try ProactorLoop() }
            }
        }
    }

    @Test("S12 a program needs no policy, nor a choice")
    func programWithoutPolicy() async throws {
        try await onThread {
            try Loops.run { loop in print("hello from", loop.backend) }
            #expect(try Loops.run { loop in loop.backend.isEmpty } == false)
        }
    }

    @Test("S12 run makes the loop that was chosen, sets it, and closes it", arguments: LoopKind.available)
    func runOnChoice(_ kind: LoopKind) async throws {
        try await onThread {
            var options = LoopOptions.forTests
            options.selector = .poll
            let kept = try Loops.run(on: kind.choice, options: options) { loop in
                #expect(loop.selection.kind == kind && loop.selection.source == .argument)
                #expect(loop.backend == (kind == .selector ? "poll" : "io_uring"))
                let current = try LoopPolicies.current.currentLoop()
                #expect(Loops.running === loop && current === loop)
                return loop
            }
            #expect(kept.isClosed)
            #expect(throws: LoopError.self) { try Loops.current() }
        }
    }

    @Test("S12 run ends with the error of its body, and closes the loop", arguments: LoopKind.available)
    func runRethrows(_ kind: LoopKind) async throws {
        struct Mine: Error {}
        try await onThread {
            final class Kept: @unchecked Sendable { var loop: (any Loop)? }
            let kept = Kept()
            #expect(throws: Mine.self) {
                try Loops.run(on: kind.choice, options: .forTests) { loop in
                    kept.loop = loop
                    try await loop.sleep(for: .milliseconds(1))
                    throw Mine()
                }
            }
            #expect(kept.loop?.isClosed == true)
            #expect(throws: LoopError.self) { try Loops.current() }
            #expect(throws: LoopError.stoppedBeforeCompletion) {
                try Loops.run(on: kind.choice, options: .forTests) { loop in
                    loop.stop()
                    try await loop.sleep(for: .seconds(3600))
                }
            }
        }
    }

    @Test("S12 an unknown choice is an error that lists the known ones")
    func unknownChoice() async throws {
        try await onThread {
            let error = LoopError.unknownPolicy(name: "no such policy", known: LoopPolicies.registeredNames)
            #expect(error.description.contains("best, default, proactor, selector"))
            #expect(throws: error) { try Loops.run(on: "no such policy") { _ in } }
            #expect(throws: error) { try LoopPolicies.resolve("no such policy") }
        }
    }

    @Test("N1 a choice is a name, a literal, or one of the known ones")
    func choices() {
        #expect(LoopChoice.selector == "selector" && LoopChoice.proactor == "proactor" && LoopChoice.best == "best")
        #expect(LoopChoice.named("mine").name == "mine" && LoopChoice.named("mine") != .best)
        #expect(LoopPolicies.registeredNames == LoopPolicies.registeredNames.sorted())
        #expect(Set(LoopPolicies.registeredNames).isSuperset(of: ["best", "default", "proactor", "selector"]))
    }

    @Test("N1 resolve finds what was asked for by name, and says so", arguments: LoopKind.available)
    func resolveByName(_ kind: LoopKind) async throws {
        let resolution = try LoopPolicies.resolve(kind.rawValue)
        #expect(resolution.source == .argument && resolution.reason.contains(kind.rawValue))
        let loop = try resolution.policy.makeLoop()
        defer { try? loop.close() }
        #expect(loop.selection == LoopSelection(kind: kind, source: .argument, reason: resolution.reason))
        #expect(try LoopPolicies.resolve(kind.rawValue).policy !== resolution.policy)
    }
}
