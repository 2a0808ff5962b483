// SPDX-License-Identifier: Apache-2.0
//
// UnhandledErrorTests.swift: errors that no caller waits for: the hook, and where they go without one.

import EventLoops
import Testing

private struct Mishap: Error, CustomStringConvertible {
    var description: String { "a mishap of the test" }
}

@Suite("Unhandled errors", .timeLimit(.minutes(1)))
struct UnhandledErrorTests {
    @Test(
        "H1 without a hook, an error is a line on standard error, and the loop goes on", arguments: LoopKind.available)
    func standardError(kind: LoopKind) async throws {
        let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
            [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                var wentOn = false
                try loop.callSoon { throw Mishap() }
                try loop.callSoon { wentOn = true }
                try loop.runOnce(.noWait)
                #expect(wentOn)
            }
        }
        let text = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
        let lines = text.split(separator: "\n").filter { $0.contains("a mishap of the test") }
        #expect(lines == ["swift-event-loops: unhandled error in callback: a mishap of the test"])
    }

    @Test("H1 the hook can be asked for, exchanged, and taken away", arguments: LoopKind.available)
    func hook(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(loop.onUnhandledError == nil)
            let told = Journal<String>()
            loop.onUnhandledError = { _, unhandled in told.note("first: \(unhandled)") }
            let first = loop.onUnhandledError
            loop.onUnhandledError = { loop, unhandled in
                told.note("second")
                first?(loop, unhandled)
            }
            try loop.callSoon { throw Mishap() }
            try loop.runOnce(.noWait)
            #expect(told.entries == ["second", "first: callback: a mishap of the test"])
            loop.onUnhandledError = nil
            #expect(loop.onUnhandledError == nil)
        }
    }
}
