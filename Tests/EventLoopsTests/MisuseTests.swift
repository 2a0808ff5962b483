// SPDX-License-Identifier: Apache-2.0
//
// MisuseTests.swift: what a loop refuses while it runs: to be closed, to be run within itself, to be used from
// elsewhere. Each refusal is an error or a trap, as documented, and leaves the loop as it was.

import CLoopCore
import EventLoops
import Testing

@Suite("Misuse") struct MisuseTests {
    private struct CallbackError: Error {}

    private static func refusal(_ body: () throws -> Void) -> LoopError? {
        do { try body() } catch { return error as? LoopError }
        return nil
    }

    /// Plays `misuse` from each place of a loop that runs code of its user, and returns the errors by place.
    private static func everywhere(
        on loop: any Loop, _ misuse: @escaping @Sendable () -> LoopError?
    ) async throws -> [String: LoopError?] {
        let journal = Journal<(String, LoopError?)>()
        @Sendable func tell(_ place: String) { journal.note((place, misuse())) }
        try loop.callSoon { tell("callback") }
        try loop.callLater(.milliseconds(1)) { tell("timer") }
        try loop.callSoonThreadsafe { tell("post") }
        loop.onUnhandledError = { _, _ in tell("hook") }
        try loop.callSoon { throw CallbackError() }
        let (connection, peer) = try makePair(on: loop)
        let notes = Notes()
        notes.onReceive = { _ in tell("handler") }
        try connection.start(notes)
        try peer.send([1])
        let task = loop.spawn { tell("task") }
        try await task.value
        tell("body")
        try await until("each place was reached", on: loop) { journal.entries.count == 7 }
        loop.onUnhandledError = nil
        connection.abort()
        return Dictionary(journal.entries) { first, _ in first }
    }

    /// The loop did not notice: it still has its timers, its connections and its door.
    private static func expectWorks(_ loop: any Loop) async throws {
        let (connection, peer) = try makePair(on: loop)
        try await loop.sleep(for: .microseconds(100))
        try peer.send([1, 2])
        #expect(try await connection.read(atLeast: 2) == [1, 2])
        try await onThread { try loop.callSoonThreadsafe {} }
        await connection.close()
    }

    // MARK: F23

    @Test(
        "F23 close is refused wherever the loop runs its user's code, and the loop goes on",
        arguments: LoopKind.available)
    func closeFromWithin(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let errors = try await Self.everywhere(on: loop) { Self.refusal { try loop.close() } }
            #expect(errors.count == 7)
            #expect(errors.values.allSatisfy { $0 == .running }, "\(errors)")
            #expect(!loop.isClosed)
            try await Self.expectWorks(loop)
        }
    }

    @Test("F23 close is refused on other threads, whether the loop is awake or asleep", arguments: LoopKind.available)
    func closeFromElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let runner = lc_thread_id()
            // Awake: it waits for that thread.
            #expect(try onJoinedThread { Self.refusal { try loop.close() } } == .running)
            // Asleep in the kernel, with something there that a close would have to end.
            let (connection, peer) = try makePair(on: loop)
            let read = loop.spawn { try await connection.read(atLeast: 1) }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            let refusals = try await onThread {
                try (0..<10).map { _ in
                    try #require(waitUntilAsleep(runner))
                    return Self.refusal { try loop.close() }
                }
            }
            #expect(refusals.allSatisfy { $0 == .running })
            #expect(!loop.isClosed && !connection.isClosed)
            try peer.send([7])
            #expect(try await read.value == [7])
            try await Self.expectWorks(loop)
        }
    }

    @Test("F23 once run has returned, another thread may close the loop", arguments: LoopKind.available)
    func closeAfterwards(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            weak var captured: Witness?
            func queue() throws {
                let witness = Witness()
                captured = witness
                try loop.callLater(.seconds(3600)) { withExtendedLifetime(witness) {} }
            }
            try queue()
            try loop.runWatched { try await Self.expectWorks(loop) }
            try onJoinedThread { try loop.close() }
            #expect(loop.isClosed)
            #expect(captured == nil)
            #expect(Self.refusal { try loop.run() } == .closed)
            try loop.close()
        }
    }

    // MARK: F46

    /// The errors are in the tests of X7. Here are those that have no way to report one.
    @Test("F46 cancelling a handle on another thread traps while the loop runs", arguments: LoopKind.available)
    func handleElsewhere(kind: LoopKind) async throws {
        await #expect(processExitsWith: .failure) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let handle = try loop.callLater(.seconds(3600)) {}
                try onJoinedThread { handle.cancel() }
            }
        }
        // The same where it is allowed: on the loop's thread, and anywhere while the loop does not run.
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let kind = try #require(LoopKind(rawValue: kind))
            try await onThread {
                let loop = try kind.makeLoop()
                let first = try loop.callLater(.seconds(3600)) {}
                let second = try loop.callLater(.seconds(3600)) {}
                try loop.callSoon { second.cancel() }
                try onJoinedThread { first.cancel() }
                try loop.runUntilIdle()
                try loop.close()
            }
        }
    }

    @Test("F46 assuming the loop's isolation on another thread traps", arguments: LoopKind.available)
    func isolationElsewhere(kind: LoopKind) async throws {
        await #expect(processExitsWith: .failure) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                try onJoinedThread { loop.serialExecutor.checkIsolated() }
            }
        }
    }

    @Test(
        "F46 sleep and accept of a running loop are refused on other threads, and calls are not",
        arguments: LoopKind.available)
    func awaitElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let refusals = await Task.detached {
                [
                    await thrown { try await loop.sleep(for: .zero) },
                    await thrown { _ = try await listener.accept() },
                    await thrown { try loop.callAt(.now) {} },
                ]
            }.value
            #expect(refusals == ["sleep", "accept", "callAt"].map { .wrongThread(operation: $0) })
            // What is documented for any thread works on any.
            let arrived = Latch()
            try await onThread { try loop.callSoonThreadsafe { arrived.open() } }
            try await until("the call has arrived", on: loop) { arrived.isOpen }
            listener.close()
            try await Self.expectWorks(loop)
        }
    }

    // MARK: F78

    private static let waysToRun: [@Sendable (any Loop) throws -> Void] = [
        { try $0.run() },
        { try $0.runOnce(.noWait) },
        { try $0.runUntilIdle() },
        { try $0.run(until: {}) },
    ]

    @Test("F78 a loop is not run within itself, whoever asks", arguments: LoopKind.available)
    func nestedRun(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for way in Self.waysToRun {
                let errors = try await Self.everywhere(on: loop) { Self.refusal { try way(loop) } }
                #expect(errors.count == 7)
                #expect(errors.values.allSatisfy { $0 == .alreadyRunning }, "\(errors)")
            }
            #expect(Loops.running === loop)
            try await Self.expectWorks(loop)
        }
    }

    @Test("F78 another loop is not run within a loop, whoever asks, and runs afterwards", arguments: LoopKind.available)
    func nestedRunOfAnother(kind: LoopKind) async throws {
        let other = try kind.makeLoop()
        defer { try? other.close() }
        let ran = Latch()
        try other.callSoon { ran.open() }
        try await onLoop(kind) { loop in
            for way in Self.waysToRun {
                let errors = try await Self.everywhere(on: loop) { Self.refusal { try way(other) } }
                #expect(errors.count == 7)
                #expect(errors.values.allSatisfy { $0 == .anotherLoopRunning }, "\(errors)")
            }
            // Nor does the main road lead into a loop from within another one.
            #expect(Self.refusal { try Loops.run(on: kind.choice) { _ in } } == .anotherLoopRunning)
            #expect(Loops.running === loop && !other.isRunning)
            try await Self.expectWorks(loop)
        }
        #expect(!ran.isOpen)
        try await onThread { try other.runOnce(.noWait) }
        #expect(ran.isOpen)
    }
}
