// SPDX-License-Identifier: Apache-2.0
//
// CallTests.swift: callbacks: their order, their passes, their cancelling, their errors.

import CLoopCore
import EventLoops
import Testing

@Suite("Callbacks") struct CallTests {
    private struct CallbackError: Error, Equatable { let number: Int }

    // MARK: T1

    @Test("T1 callbacks run first come first served, and once", arguments: LoopKind.available)
    func order(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let count = 3000  // more than one chunk of records
            var ran: [Int] = []
            for round in 0..<3 {
                ran = []
                for number in 0..<count { try loop.callSoon { ran.append(number) } }
                try loop.runOnce(.noWait)
                #expect(ran == Array(0..<count), "round \(round)")
                try loop.runOnce(.noWait)
                #expect(ran.count == count)
            }
        }
    }

    @Test("T1 a handle says whether its callback is still to run", arguments: LoopKind.available)
    func pending(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var handle: Handle?
            var pendingWithin: Bool?
            handle = try loop.callSoon { pendingWithin = handle?.isPending }
            #expect(handle?.isPending == true)
            try loop.runOnce(.noWait)
            #expect(pendingWithin == false)
            #expect(handle?.isPending == false)
        }
    }

    // MARK: T2

    /// Everything becomes ready in one pass, whichever came first in time.
    @Test("T2 a pass runs callbacks, then I/O, then timers", arguments: LoopKind.available)
    func passOrder(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            let journal = Journal<String>()
            let passes = Journal<UInt64>()
            @Sendable func note(_ name: String) {
                journal.note(name)
                passes.note(loop.statistics.passes)
            }
            loop.spawn {
                try await loop.readable(pipe.readEnd)
                note("I/O")
            }
            let armed = try loop.pass {
                loop.statistics.operationsInKernel + loop.statistics.armedOperations == 1
            }
            #expect(armed)
            try loop.callSoon {
                try loop.callLater(.seconds(-1)) { note("timer") }
                pipe.fill()
                try loop.callSoon { note("callback") }
            }
            try loop.runOnce(.noWait)
            #expect(journal.entries.isEmpty)
            try loop.runOnce(.noWait)
            #expect(journal.entries == ["callback", "I/O", "timer"])
            #expect(Set(passes.entries).count == 1)
        }
    }

    // MARK: T3

    @Test("T3 what a pass adds runs in the next", arguments: LoopKind.available)
    func addedDuringPass(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let journal = Journal<String>()
            let first = try loop.callSoon {
                try loop.callSoon { journal.note("callSoon") }
                try loop.callSoonThreadsafe { journal.note("callSoonThreadsafe") }
                try loop.callLater(.seconds(-1)) { journal.note("callLater") }
            }
            try loop.callSoon { journal.note("first pass") }
            try loop.runOnce(.noWait)
            #expect(!first.isPending)
            #expect(journal.entries == ["first pass"])
            try loop.runOnce(.noWait)
            #expect(journal.entries == ["first pass", "callSoon", "callSoonThreadsafe", "callLater"])
            #expect(loop.statistics.passes == 2)
        }
    }

    @Test("T3 callbacks without end do not starve I/O and timers", arguments: LoopKind.available)
    func noStarving(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let pipe = try PipePair()
            defer { pipe.close() }
            pipe.fill()
            let (gotIO, gotTimer) = (Latch(), Latch())
            loop.spawn {
                try await loop.readable(pipe.readEnd)
                gotIO.open()
            }
            try loop.callLater(.zero) { gotTimer.open() }
            var links = 0
            func link() throws {
                links += 1
                if gotIO.isOpen && gotTimer.isOpen || links == 1000 { loop.stop() } else { try loop.callSoon(link) }
            }
            try loop.callSoon(link)
            try loop.runWatched()
            #expect(gotIO.isOpen)
            #expect(gotTimer.isOpen)
        }
    }

    // MARK: T4

    @Test("T4 a callback cancelled while it is queued is skipped", arguments: LoopKind.available)
    func cancelledWhileQueued(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran: [String] = []
            var handles: [Handle] = []
            try loop.callSoon { ran.append("before") }
            let early = try loop.callSoon { ran.append("cancelled before the pass") }
            try loop.callSoon { for handle in handles { handle.cancel() } }
            handles.append(try loop.callSoon { ran.append("cancelled in the pass") })
            // Due in the same pass, so already among what runs in it.
            handles.append(try loop.callLater(.seconds(-1)) { ran.append("cancelled when due") })
            try loop.callSoon { ran.append("after") }
            early.cancel()
            #expect(!early.isPending)
            try loop.runOnce(.noWait)
            try loop.runOnce(.noWait)
            #expect(ran == ["before", "after"])
            #expect(!handles[0].isPending && !handles[1].isPending)
        }
    }

    // MARK: T10

    @Test("T10 cancel frees a callback and its captures at once, and twice does nothing", arguments: LoopKind.available)
    func cancelFrees(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            weak var kept: Witness?
            func queue() throws -> Handle {
                let witness = Witness()
                kept = witness
                return try loop.callSoon { Issue.record("it was cancelled: \(witness)") }
            }
            let handle = try queue()
            #expect(kept != nil)
            handle.cancel()
            #expect(kept == nil)
            handle.cancel()
            try loop.runOnce(.noWait)
            handle.cancel()
        }
    }

    @Test("T10 a callback that has run is freed", arguments: LoopKind.available)
    func runFrees(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            weak var kept: Witness?
            func queue() throws {
                let witness = Witness()
                kept = witness
                try loop.callSoon { withExtendedLifetime(witness) {} }
            }
            try queue()
            #expect(kept != nil)
            try loop.runOnce(.noWait)
            #expect(kept == nil)
        }
    }

    /// The record of a callback is used again; its old handles are not.
    @Test("T10 a handle never cancels another callback", arguments: LoopKind.available)
    func staleHandles(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ran = 0
            var stale: [Handle] = []
            for round in 1...100 {
                stale.append(try loop.callSoon { ran += 1 })
                stale.append(try loop.callLater(.seconds(-1)) { ran += 1 })
                let cancelled = try loop.callLater(.seconds(3600)) { Issue.record("it was cancelled") }
                for handle in stale.dropLast(2) { handle.cancel() }
                cancelled.cancel()
                stale.append(cancelled)
                try loop.runOnce(.noWait)
                #expect(ran == 2 * round)
            }
        }
    }

    @Test("T10 a callback may cancel itself", arguments: LoopKind.available)
    func cancelsItself(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var handle: Handle?
            var ran: [String] = []
            handle = try loop.callSoon {
                // Takes the record that has just become free.
                try loop.callSoon { ran.append("new") }
                handle?.cancel()
                ran.append("old")
            }
            try loop.runOnce(.noWait)
            try loop.runOnce(.noWait)
            #expect(ran == ["old", "new"])
        }
    }

    /// The end of a captured object is code like any other, and runs in the middle of `cancel()`.
    @Test("T10 an object freed by cancel may use the loop", arguments: LoopKind.available)
    func cancelReentered(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [name = kind.rawValue as String] in
            let loop = try #require(LoopKind(rawValue: name)).makeLoop()
            let ran = Journal<String>()
            func queue() throws -> [Handle] {
                let witnesses = (1...2).map { number in
                    Witness { _ = try? loop.callSoon { ran.note("from witness \(number)") } }
                }
                return [
                    try loop.callSoon { withExtendedLifetime(witnesses[0]) {} },
                    try loop.callLater(.seconds(3600)) { withExtendedLifetime(witnesses[1]) {} },
                ]
            }
            for handle in try queue() { handle.cancel() }
            try loop.runOnce(.noWait)
            precondition(ran.entries.sorted() == ["from witness 1", "from witness 2"])
            try loop.close()
        }
    }

    // MARK: T14

    @Test("F76 T14 what a callback throws goes to the hook, and the loop goes on", arguments: LoopKind.available)
    func unhandledErrors(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let errors = Journal<CallbackError?>()
            let messages = Journal<String>()
            loop.onUnhandledError = { from, unhandled in
                #expect(from === loop)
                messages.note(unhandled.message)
                errors.note(unhandled.error as? CallbackError)
            }
            try loop.callSoon { throw CallbackError(number: 1) }
            try loop.callSoonThreadsafe { throw CallbackError(number: 2) }
            try loop.callLater(.seconds(-1)) { throw CallbackError(number: 3) }
            var reached = false
            try loop.callSoon {
                try loop.callSoon {
                    reached = true
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(reached)
            #expect(errors.entries.compactMap { $0?.number }.sorted() == [1, 2, 3])
            #expect(Set(messages.entries) == ["callback"])
            loop.onUnhandledError = nil  // which refers to the loop
        }
    }

    @Test("T14 the hook may change the hook", arguments: LoopKind.available)
    func hookChangesItself(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let told = Journal<String>()
            loop.onUnhandledError = { loop, _ in
                told.note("first")
                loop.onUnhandledError = { _, _ in told.note("second") }
            }
            for number in 1...3 { try loop.callSoon { throw CallbackError(number: number) } }
            try loop.runOnce(.noWait)
            #expect(told.entries == ["first", "second", "second"])
        }
    }

    // MARK: X7

    @Test("F46 X7 a call from another thread while the loop runs is refused", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.callSoon {
                let refusals = try onJoinedThread { () -> [LoopError] in
                    var refusals: [LoopError] = []
                    func expectRefusal(_ call: () throws(LoopError) -> Void) {
                        do throws(LoopError) { try call() } catch { refusals.append(error) }
                    }
                    expectRefusal { () throws(LoopError) in try loop.callSoon {} }
                    expectRefusal { () throws(LoopError) in try loop.callLater(.zero) {} }
                    return refusals
                }
                #expect(refusals == [.wrongThread(operation: "callSoon"), .wrongThread(operation: "callAt")])
            }
            try loop.runOnce(.noWait)
            #expect(loop.statistics.timers == 0)
        }
    }
}
