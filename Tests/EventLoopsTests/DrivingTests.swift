// SPDX-License-Identifier: Apache-2.0
//
// DrivingTests.swift: runs that are aborted, and passes that somebody else's loop drives.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error, Equatable {
    let number: Int
}

/// The mishap that a run was aborted with.
private func mishap(_ body: () throws -> Void) -> Mishap? {
    do {
        try body()
        return nil
    } catch LoopError.aborted(let reason) {
        return reason.error as? Mishap
    } catch {
        Issue.record(error)
        return nil
    }
}

/// What can be done to end a wait at a descriptor.
private enum Cause: CaseIterable {
    case call, stop, data
}

@Suite("Driving", .timeLimit(.minutes(1)))
struct DrivingTests {
    // MARK: E12

    @Test(
        "E12 an abort ends the run after the current callback, and what is queued stays", arguments: LoopKind.available)
    func abort(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            try loop.callSoon { ran.append("before") }
            try loop.callSoon {
                try loop.callSoon { ran.append("added") }
                try loop.abort(throwing: Mishap(number: 1))
                try loop.abort(throwing: Mishap(number: 2))  // the first counts
                ran.append("aborting")
            }
            try loop.callSoon { ran.append("after") }
            try loop.callLater(.seconds(-1)) { ran.append("timer") }
            #expect(mishap { try loop.runWatched() } == Mishap(number: 1))
            #expect(ran == ["before", "aborting"])
            #expect(!loop.isRunning && !loop.isClosed)
            try loop.runOnce(.noWait)
            #expect(ran == ["before", "aborting", "after", "timer", "added"])
        }
    }

    @Test("E12 every way to run throws what the run was aborted with", arguments: LoopKind.available)
    func ways(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let ways: [() throws -> Void] = [
                { try loop.runWatched() }, { try loop.watched { try loop.runUntilIdle() } }, { try loop.runOnce() },
                { try loop.runOnce(.noWait) }, { try loop.withRunning { _ = try loop.pass() } },
            ]
            for (number, way) in ways.enumerated() {
                try loop.callSoon { try loop.abort(throwing: Mishap(number: number)) }
                #expect(mishap(way) == Mishap(number: number))
            }
            #expect(throws: Mishap(number: 9)) {
                try loop.runWatched {
                    try loop.abort(throwing: Mishap(number: 9))
                    try await loop.sleep(for: .seconds(3600))
                }
            }
        }
    }

    /// Source: test_run_until_complete_baseexception of asyncio.
    @Test("E12 an abort leaves no stop behind, nor a body that stops a later run", arguments: LoopKind.available)
    func noStaleStop(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let ended = Latch()
            #expect(throws: Mishap(number: 1)) {
                try loop.runWatched {
                    loop.stop()
                    try loop.abort(throwing: Mishap(number: 1))
                    ended.open()
                }
            }
            #expect(ended.isOpen)
            // A stop that was left over would end this before its timer.
            var reached = false
            try loop.callLater(.milliseconds(20)) {
                reached = true
                loop.stop()
            }
            try loop.runWatched()
            #expect(reached)
            // And a body that was interrupted goes on without a word.
            let pipe = try PipePair()
            defer { pipe.close() }
            let goesOn = Latch()
            try loop.callSoon { try loop.callSoon { try loop.abort(throwing: Mishap(number: 2)) } }
            #expect(throws: Mishap(number: 2)) {
                try loop.runWatched {
                    try await loop.readable(pipe.readEnd)
                    goesOn.open()
                }
            }
            pipe.fill()
            var passes = 0
            func count() throws {
                passes += 1
                if passes == 100 { loop.stop() } else { try loop.callSoon(count) }
            }
            try loop.callSoon(count)
            try loop.runWatched()
            #expect(passes == 100)
            #expect(try loop.pass { goesOn.isOpen })
        }
    }

    @Test("E12 only a run can be aborted, on its thread", arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            #expect(throws: LoopError.noRunningLoop) { try loop.abort(throwing: Mishap(number: 1)) }
            try loop.callSoon {
                let elsewhere = try onJoinedThread { () -> LoopError? in
                    do throws(LoopError) { try loop.abort(throwing: Mishap(number: 2)) } catch { return error }
                    return nil
                }
                #expect(elsewhere == .wrongThread(operation: "abort"))
            }
            try loop.runOnce(.noWait)
            // Asked for between passes, it is for the next one, or for none.
            try loop.withRunning { try loop.abort(throwing: Mishap(number: 3)) }
            try loop.runOnce(.noWait)
            try loop.close()
            #expect(throws: LoopError.closed) { try loop.abort(throwing: Mishap(number: 4)) }
        }
    }

    // MARK: E13

    @Test("E13 passes of one's own do what a run does", arguments: LoopKind.available)
    func passes(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            let pipe = try PipePair()
            defer { pipe.close() }
            try loop.withRunning {
                #expect(loop.isRunning && loop.isOnLoop && Loops.running === loop)
                let task = loop.spawn { try await loop.readable(pipe.readEnd) }
                let done = Latch()
                loop.launch {
                    try await task.value
                    done.open()
                }
                try loop.callSoon {
                    ran.append("first")
                    try loop.callSoon { ran.append("second") }
                }
                #expect(try loop.pass())
                #expect(ran == ["first"])
                #expect(try loop.pass())
                #expect(ran == ["first", "second"])
                pipe.fill()
                for _ in 0..<1_000_000 where !done.isOpen { try loop.pass() }
                #expect(done.isOpen)
                try loop.callLater(.milliseconds(5)) { ran.append("timer") }
                for _ in 0..<3 where ran.last != "timer" { try loop.pass(.wait) }
                #expect(ran.last == "timer")
                loop.stop()
                #expect(try !loop.pass(.wait))
                #expect(try loop.pass())
            }
            #expect(!loop.isRunning && Loops.running == nil)
            // A stop nobody saw ends with the rest.
            try loop.withRunning { loop.stop() }
            try loop.callLater(.milliseconds(5)) {
                ran.append("last")
                loop.stop()
            }
            try loop.runWatched()
            #expect(ran.last == "last")
        }
    }

    @Test("E13 a pass is made within withRunning alone, and never within a pass", arguments: LoopKind.available)
    func refusedPasses(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            func expect(_ error: LoopError, sourceLocation: SourceLocation = #_sourceLocation) {
                #expect(throws: error, sourceLocation: sourceLocation) { try loop.pass() }
                #expect(throws: error, sourceLocation: sourceLocation) { _ = try loop.prepareToWait() }
            }
            expect(.noRunningLoop)
            #expect(loop.backendFD == nil)
            var asked = 0
            try loop.callSoon {
                expect(.alreadyRunning)
                asked += 1
            }
            try loop.runOnce(.noWait)
            try loop.withRunning {
                #expect(throws: LoopError.alreadyRunning) { try loop.withRunning {} }
                #expect(throws: LoopError.alreadyRunning) { try loop.run() }
                #expect(throws: LoopError.running) { try loop.close() }
                try loop.callSoon {
                    expect(.alreadyRunning)
                    asked += 1
                }
                try loop.pass()
            }
            #expect(asked == 2)
            #expect(throws: Mishap(number: 1)) { try loop.withRunning { throw Mishap(number: 1) } }
            #expect(!loop.isRunning)
            try loop.close()
            expect(.closed)
            #expect(throws: LoopError.closed) { try loop.withRunning {} }
        }
    }

    @Test("E13 before a wait, the loop says how long it may last", arguments: LoopKind.available)
    func timeouts(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.withRunning {
                try loop.pass()
                #expect(try loop.prepareToWait() == nil)
                try loop.callSoon {}
                #expect(try loop.prepareToWait() == .zero)
                try loop.pass()
                let timer = try loop.callLater(.seconds(3600)) {}
                let timeout = try #require(try loop.prepareToWait())
                #expect(timeout > .zero && timeout <= .seconds(3600))
                timer.cancel()
                try onJoinedThread { try loop.callSoonThreadsafe {} }
                #expect(try loop.prepareToWait() == .zero)
                try loop.pass()
                loop.stop()
                #expect(try loop.prepareToWait() == .zero)
                try loop.pass()
                #expect(try loop.prepareToWait() == nil)
            }
        }
    }

    @Test(
        "E13 the loop's descriptor is readable when there is something to do, and not before",
        .realKernel("descriptors of loops"), arguments: LoopKind.available)
    func descriptor(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var told: [Cause] = []
            try loop.withRunning {
                try loop.watch(pipe.readEnd, .read) {
                    var byte: UInt8 = 0
                    if read(pipe.readEnd, &byte, 1) == 1 { told.append(.data) }
                }
                try loop.pass()
                let descriptor = try #require(loop.backendFD)
                for round in 1...3 {
                    for cause in Cause.allCases {
                        // Whatever a pass leaves to another one is done when it is willing to wait.
                        var limit = 0
                        while try loop.prepareToWait() == .zero, limit < 100 {
                            try loop.pass()
                            limit += 1
                        }
                        #expect(!isReadable(descriptor), "\(cause)")
                        switch cause {
                        case .call: try onJoinedThread { try loop.callSoonThreadsafe {} }
                        case .stop: try onJoinedThread { loop.stop() }
                        case .data: pipe.fill()
                        }
                        #expect(isReadable(descriptor), "\(cause)")
                        let goesOn = try loop.pass()
                        #expect(goesOn == (cause != .stop))
                        for _ in 0..<100 where cause == .data && told.count < round { try loop.pass() }
                        #expect(told.count == (cause == .data ? round : round - 1))
                    }
                }
            }
            #expect(loop.backendFD == nil)
        }
    }

    @Test(
        "E13 a selector other than epoll has no descriptor to wait at", .realKernel("selectors"),
        arguments: [LoopOptions.Selector.poll, .select])
    func noDescriptor(selector: LoopOptions.Selector) async throws {
        try await onThread {
            var options = LoopOptions.forTests
            options.selector = selector
            let loop = try SelectorLoop(options: options)
            defer { try? loop.close() }
            try loop.withRunning {
                try loop.pass()
                #expect(loop.backendFD == nil)
            }
        }
    }
}

/// Whether it is, now.
private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
}
