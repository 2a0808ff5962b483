// SPDX-License-Identifier: Apache-2.0
//
// DebugTests.swift: the debug mode, hooks that break, errors of tasks nobody awaits, contexts.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error, CustomStringConvertible {
    let description: String
    init(_ description: String = "a mishap of the test") { self.description = description }
}

/// Keeps the thread for that long, at least.
private func keepBusy(for duration: Duration) {
    let end = LoopInstant.now.advanced(by: duration)
    while LoopInstant.now < end {}
}

private enum Local {
    @TaskLocal static var value = "none"
}

/// The lines that a process of its own left on standard error and that hold `text`.
private func lines(of result: ExitTest.Result?, with text: String) throws -> [String] {
    String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
        .split(separator: "\n").filter { $0.contains(text) }.map(String.init)
}

@Suite("Debugging", .timeLimit(.minutes(1)))
struct DebugTests {
    // MARK: H2, H3

    @Test("H2 an error nobody handles names the descriptor it is about", arguments: LoopKind.available)
    func context(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let told = Log<UnhandledError>()
            loop.onUnhandledError = { _, unhandled in told.append(unhandled) }
            pipe.fill()
            try loop.watch(pipe.readEnd, .read) {
                loop.unwatch(pipe.readEnd, .read)
                throw Mishap()
            }
            #expect(try loop.pass { !told.all.isEmpty })
            try loop.callSoon { throw Mishap() }
            try loop.runOnce(.noWait)
            #expect(told.all.map(\.descriptor) == [pipe.readEnd, nil])
            #expect(told.all.allSatisfy { $0.connection == nil && $0.address == nil && $0.signal == nil })
        }
    }

    @Test("H2 an error of a server's connection names the connection", arguments: LoopKind.available)
    func contextOfServer(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<UnhandledError>()
            loop.onUnhandledError = { _, unhandled in told.append(unhandled) }
            let server = try Server(on: loop, endpoints: [SocketAddress("127.0.0.1", 0)])
            let served = Log<Connection>()
            try server.start { connection in
                served.append(connection)
                throw Mishap()
            }
            let port = try #require(server.addresses.first).port
            let connection = try await Connection.connect(to: "127.0.0.1", port: port, on: loop)
            try await until("it has been told", on: loop) { !told.all.isEmpty }
            let about = try #require(told.all.first?.connection)
            #expect(served.all.map { $0 === about } == [true])
            connection.abort()
            server.close()
            try await server.waitClosed()
        }
    }

    @Test(
        "H3 what goes wrong in the hook is a line on standard error, and the loop goes on",
        arguments: LoopKind.available)
    func brokenHook(kind: LoopKind) async throws {
        let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
            [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                let told = Journal<String>()
                loop.onUnhandledError = { loop, unhandled in
                    told.note("\(unhandled)")
                    loop.reportUnhandled(Mishap("broken, too"), "while reporting")
                }
                for number in 1...2 {
                    try loop.callSoon { throw Mishap("number \(number)") }
                    try loop.runOnce(.noWait)
                }
                #expect(told.entries == ["callback: number 1", "callback: number 2"])
                // Taken away, the default is back.
                loop.onUnhandledError = nil
                loop.reportUnhandled(Mishap("number 3"), "test")
            }
        }
        let broken =
            "swift-event-loops: unhandled error in the hook for unhandled errors, in while reporting: broken, too"
        #expect(
            try lines(of: result, with: "unhandled error in")
                == [broken, broken, "swift-event-loops: unhandled error in test: number 3"])
    }

    @Test("H3 a hook may exchange itself, and its captures may ask for the hook", arguments: LoopKind.available)
    func hookReplacesItself(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let told = Journal<String>()
            do {
                let captured = Witness { [weak loop] in told.note("freed, \(loop?.onUnhandledError == nil)") }
                loop.onUnhandledError = { loop, _ in
                    told.note("first")
                    loop.onUnhandledError = { _, _ in
                        told.note("second")
                        withExtendedLifetime(captured) {}
                    }
                }
            }
            for _ in 0..<2 {
                try loop.callSoon { throw Mishap() }
                try loop.runOnce(.noWait)
            }
            #expect(told.entries == ["first", "second"])
            loop.onUnhandledError = nil
            #expect(told.entries == ["first", "second", "freed, true"])
        }
    }

    // MARK: H4, H5

    @Test("H4 the environment turns the debug mode on for loops made from then on", arguments: LoopKind.available)
    func environment(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                for (value, expected) in [("1", true), ("0", false), ("", false), ("yes", true)] {
                    setenv("LOOP_DEBUG", value, 1)
                    let loop = try kind.makeLoop()
                    #expect(loop.isDebug == expected, "\(value)")
                    loop.isDebug = !expected
                    #expect(loop.isDebug != expected)
                    try loop.close()
                }
                unsetenv("LOOP_DEBUG")
                let loop = try kind.makeLoop()
                #expect(!loop.isDebug)
                try loop.close()
            }
        }
    }

    @Test(
        "H4 H5 slow callbacks and tasks are told while debugging, also if it begins in a run",
        arguments: LoopKind.available)
    func slow(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(loop.slowCallbackThreshold == .milliseconds(100))
            loop.isDebug = false
            loop.slowCallbackThreshold = .milliseconds(2)
            let told = Log<SlowCallback>()
            loop.onSlowCallback = { [weak loop] teller, slow in
                #expect(teller === loop)
                told.append(slow)
            }
            let slow = { keepBusy(for: .milliseconds(2)) }
            try loop.callSoon(slow)
            try loop.runOnce(.noWait)
            #expect(told.all.isEmpty)
            try loop.callSoon {
                loop.isDebug = true
                try loop.callSoon(slow)
                try loop.callSoonThreadsafe { keepBusy(for: .milliseconds(2)) }
                loop.spawn { keepBusy(for: .milliseconds(2)) }
                try loop.callSoon {
                    loop.isDebug = false
                    try loop.callSoon(slow)
                }
            }
            for _ in 0..<4 { try loop.runOnce(.noWait) }
            let expected = ["callback or timer", "callback from another thread", "task"]
            // A machine that stops this thread makes others slow, too.
            #expect(expected.allSatisfy { kind in told.all.contains { $0.kind == kind } }, "\(told.all)")
            #expect(told.all.count <= 4)
            #expect(told.all.allSatisfy { $0.duration >= .milliseconds(2) })
            // What is quick enough is not told.
            loop.isDebug = true
            loop.slowCallbackThreshold = .seconds(3600)
            let before = told.all.count
            try loop.callSoon(slow)
            try loop.runOnce(.noWait)
            #expect(told.all.count == before)
        }
    }

    @Test("H5 without a hook, a slow callback is a line on standard error", arguments: LoopKind.available)
    func slowLine(kind: LoopKind) async throws {
        let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
            [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                loop.isDebug = true
                loop.slowCallbackThreshold = .zero
                try loop.callSoon {}
                try loop.runOnce(.noWait)
            }
        }
        #expect(
            try lines(of: result, with: "kept the loop").map {
                $0.hasPrefix("swift-event-loops: a callback or timer kept")
            }
                == [true])
    }

    // MARK: H6

    @Test("H6 X7 calls of the wrong thread are refused by name", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            loop.isDebug = false
            await Task.detached {
                #expect(throws: LoopError.wrongThread(operation: "callSoon")) { try loop.callSoon {} }
                #expect(throws: LoopError.wrongThread(operation: "callAt")) { try loop.callLater(.zero) {} }
                #expect(throws: LoopError.wrongThread(operation: "watch")) { try loop.watch(0, .read) {} }
                let sleep = await thrown { try await loop.sleep(for: .zero) }
                #expect(sleep == .wrongThread(operation: "sleep"))
            }.value
        }
    }

    @Test("H6 X7 debugging, a call of the wrong thread traps", .realKernel("exit tests"), arguments: LoopKind.available)
    func wrongThreadTraps(kind: LoopKind) async {
        await #expect(processExitsWith: .failure) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                loop.isDebug = true
                await Task.detached { _ = try? loop.callSoon {} }.value
            }
        }
        // The trap it was, and not the rest.
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                await Task.detached { _ = try? loop.callSoon {} }.value
            }
        }
    }

    // MARK: H7

    @Test("H7 what a launched task throws is told, unless it is about its cancel", arguments: LoopKind.available)
    func launch(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { _, unhandled in told.append("\(unhandled)") }
            let ran = Log<Bool>()
            loop.launch(name: "mine") {
                ran.append(loop.isOnLoop)
                try await loop.sleep(for: .zero)
                throw Mishap()
            }
            loop.launch { throw CancellationError() }
            loop.launch { throw LoopError.cancelled(operation: "test") }
            loop.launch { ran.append(loop.isOnLoop) }
            loop.launch { throw LoopError.connectionClosed(operation: "test") }
            try await until("they have been told", on: loop) { told.all.count == 2 && ran.all.count == 2 }
            try await loop.sleep(for: .milliseconds(1))
            #expect(
                told.all.sorted() == [
                    "task \"mine\": a mishap of the test", "task: test: the connection was closed on this side.",
                ])
            #expect(ran.all == [true, true])
        }
    }

    @Test("H7 a launched task whose loop is closed ends without a word", arguments: LoopKind.available)
    func launchClosed(kind: LoopKind) async throws {
        let told = Log<String>()
        let ended = Latch()
        try await onThread {
            let loop = try kind.makeLoop()
            loop.onUnhandledError = { _, unhandled in told.append("\(unhandled)") }
            loop.launch {
                // Frees its captures once the error has gone its way.
                let witness = Witness { ended.open() }
                defer { withExtendedLifetime(witness) {} }
                try await loop.sleep(for: .seconds(3600))
            }
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            try loop.close()
            #expect(ended.wait())
        }
        #expect(told.all.isEmpty)
    }

    // MARK: T13

    /// Task-locals cannot be taken along by a callback that is no task. What it sees is what held around the run.
    @Test(
        "T13 a callback sees the task-locals of the run, a task those of where it was started",
        arguments: LoopKind.available)
    func taskLocals(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let seen = Journal<String>()
            try Local.$value.withValue("call") {
                try loop.callSoon { seen.note("callSoon \(Local.value)") }
                try loop.callLater(.seconds(-1)) { seen.note("timer \(Local.value)") }
                loop.spawn { seen.note("spawn \(Local.value)") }
                let value = Local.value  // what is to come along is captured
                try loop.callSoon { Local.$value.withValue(value) { seen.note("captured \(Local.value)") } }
            }
            try Local.$value.withValue("run") { for _ in 0..<3 { try loop.runOnce(.noWait) } }
            try loop.callSoon { seen.note("outside \(Local.value)") }
            try loop.runOnce(.noWait)
            #expect(
                Set(seen.entries) == [
                    "callSoon run", "timer run", "spawn call", "captured call", "outside none",
                ])
        }
    }
}
