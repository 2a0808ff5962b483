// SPDX-License-Identifier: Apache-2.0
//
// ActorClosingTests.swift: actors on the serial executor of a loop that is closed, and code that claims to be on one.

import EventLoops
import Testing

@Suite("Actors and closed loops", .timeLimit(.minutes(5)))
struct ActorClosingTests {
    private actor Counter {
        let loop: any Loop
        var count = 0
        init(_ loop: any Loop) { self.loop = loop }
        nonisolated var unownedExecutor: UnownedSerialExecutor { loop.serialExecutor.asUnownedSerialExecutor() }

        /// Counts in two steps, so that two calls at a time would lose one.
        func increment() {
            let before = count
            for _ in 0..<100 { _ = count }
            count = before + 1
        }

        func sleep() async -> LoopError? {
            do throws(LoopError) { try await loop.sleep(for: .seconds(3600)) } catch { return error }
            return nil
        }
    }

    /// What `body` comes to; nil if it hangs.
    private static func outcome<Success: Sendable>(of body: @escaping @Sendable () async -> Success) -> Success? {
        let end = Latch()
        let values = Journal<Success>()
        Task.detached {
            values.note(await body())
            end.open()
        }
        return end.wait() ? values.entries.first : nil
    }

    @Test(
        "E9 calls of an actor that were queued when its loop was closed come to their end",
        arguments: LoopKind.available)
    func queuedCalls(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let counter = Counter(loop)
            let ends = (0..<20).map { _ in Latch() }
            for end in ends {
                // Runs here as far as the call, which it leaves with a loop that does not run.
                Task.immediate {
                    await counter.increment()
                    end.open()
                }
            }
            try loop.close()
            #expect(ends.allSatisfy { $0.wait() }, "a call hangs")
            #expect(Self.outcome { await counter.count } == 20)
        }
    }

    @Test(
        "E9 an actor whose loop is closed answers, one call at a time, and its waits end",
        arguments: LoopKind.available)
    func laterCalls(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            try loop.close()
            let counter = Counter(loop)
            let count = Self.outcome {
                await withTaskGroup { group in
                    for _ in 0..<100 { group.addTask { await counter.increment() } }
                }
                return await counter.count
            }
            #expect(count == 100)
            #expect(Self.outcome { await counter.sleep() } == .some(.closed))
        }
    }

    @Test("N2 code on the loop's thread may say so, by callback and by task", arguments: LoopKind.available)
    func isolatedHere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            loop.serialExecutor.checkIsolated()
            loop.serialExecutor.preconditionIsolated()
        }
    }

    @Test("N2 code elsewhere that says it is on the loop is stopped", arguments: LoopKind.available)
    func isolatedElsewhere(kind: LoopKind) async throws {
        await #expect(processExitsWith: .failure) { [kind = kind.rawValue as String] in
            let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
            loop.serialExecutor.checkIsolated()
        }
    }
}
