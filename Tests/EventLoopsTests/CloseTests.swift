// SPDX-License-Identifier: Apache-2.0
//
// CloseTests.swift: closing a loop, what a closed one still says, and the end of one that nobody closed.

import CLoopCore
import EventLoops
import TestSupportC
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Closing") struct CloseTests {
    // MARK: E8

    @Test("F23 E8 a running loop refuses to close and runs on", arguments: LoopKind.available)
    func closeRunning(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ranOn = false
            try loop.callSoon {
                #expect(throws: LoopError.running) { try loop.close() }
                #expect(!loop.isClosed)
                try loop.callSoon {
                    ranOn = true
                    loop.stop()
                }
            }
            try loop.runWatched()
            #expect(ranOn)
        }
    }

    @Test("E8 close drops callbacks and timers unrun and frees what they captured", arguments: LoopKind.available)
    func closeDrops(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let journal = Journal<String>()
            weak var ofCallback: Witness?
            weak var ofTimer: Witness?
            weak var ofDueTimer: Witness?
            weak var ofPost: Witness?
            weak var ofCancelled: Witness?
            func queue() throws {
                let witnesses = (Witness(), Witness(), Witness(), Witness(), Witness())
                (ofCallback, ofTimer, ofDueTimer, ofPost, ofCancelled) = witnesses
                func tell(_ name: String, _ witness: Witness) -> @Sendable () -> Void {
                    { withExtendedLifetime(witness) { journal.note(name) } }
                }
                try loop.callSoon(tell("callback", witnesses.0))
                try loop.callLater(.seconds(3600), tell("timer", witnesses.1))
                try loop.callLater(.seconds(-1), tell("due timer", witnesses.2))
                try loop.callSoonThreadsafe(tell("post", witnesses.3))
                try loop.callSoon(tell("cancelled", witnesses.4)).cancel()
            }
            // Some of it is left over from a run.
            try loop.callSoon { try queue() }
            try loop.runOnce(.noWait)
            #expect(ofCallback != nil && ofTimer != nil && ofDueTimer != nil && ofPost != nil)
            try loop.callSoon { journal.note("late callback") }
            try loop.close()
            #expect(journal.entries.isEmpty)
            #expect(ofCallback == nil)
            #expect(ofTimer == nil)
            #expect(ofDueTimer == nil)
            #expect(ofPost == nil)
            #expect(ofCancelled == nil)
            #expect(loop.statistics.timers == 0)
        }
    }

    @Test("E8 close is for good, and once is enough", arguments: LoopKind.available)
    func closeTwice(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            #expect(!loop.isClosed)
            for _ in 0..<3 {
                try loop.close()
                #expect(loop.isClosed)
            }
            #expect(throws: LoopError.closed) { try loop.run() }
            #expect(loop.isClosed)
        }
    }

    /// The one that wakes the loop may be in the hands of a thread that is waking it, so it goes with the object.
    @Test("E8 close gives back every descriptor but the one for waking", arguments: LoopKind.available)
    func closeDescriptors(kind: LoopKind) async throws {
        try await onThread {
            let counts = try withDescriptorsOfItsOwn { () -> [Int] in
                let before = try descriptorCount()
                func close() throws -> [Int] {
                    let loop = try kind.makeLoop()
                    let made = try descriptorCount()
                    try loop.callLater(.milliseconds(1)) { loop.stop() }
                    try loop.run()
                    try loop.close()
                    return [made, try withExtendedLifetime(loop) { try descriptorCount() }]
                }
                return [before] + (try close()) + [try descriptorCount()]
            }
            #expect(counts.count == 4)
            let (before, made, closed, freed) = (counts[0], counts[1], counts[2], counts[3])
            #expect(made >= before + 2)
            #expect(closed <= before + 1)
            #expect(freed == before)
        }
    }

    /// What a callback captured may call back in when it is freed, also while the loop is closing.
    @Test("E8 an object freed by close finds the loop closed", arguments: LoopKind.available)
    func closeReentered(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [name = kind.rawValue as String] in
            let loop = try #require(LoopKind(rawValue: name)).makeLoop()
            let refused = Latch()
            func queue() throws {
                let witness = Witness {
                    do throws(LoopError) { try loop.callSoon {} } catch {
                        if error == .closed { refused.open() }
                    }
                    try? loop.close()
                }
                try loop.callSoon { withExtendedLifetime(witness) {} }
                try loop.callLater(.seconds(3600)) { withExtendedLifetime(witness) {} }
            }
            try queue()
            try loop.close()
            precondition(refused.isOpen)
        }
    }

    // MARK: E9

    @Test("E9 a closed loop refuses every call with .closed", arguments: LoopKind.available)
    func closedRefuses(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let timer = try loop.callLater(.seconds(3600)) {}
            let callback = try loop.callSoon {}
            try loop.close()
            #expect(throws: LoopError.closed) { try loop.run() }
            #expect(throws: LoopError.closed) { try loop.runOnce() }
            #expect(throws: LoopError.closed) { try loop.runOnce(.noWait) }
            #expect(throws: LoopError.closed) { try loop.runUntilIdle() }
            #expect(throws: LoopError.closed) { try loop.run {} }
            #expect(throws: LoopError.closed) { try loop.callSoon {} }
            #expect(throws: LoopError.closed) { try loop.callSoonThreadsafe {} }
            #expect(throws: LoopError.closed) { try loop.callLater(.zero) {} }
            #expect(throws: LoopError.closed) { try loop.callAt(.now) {} }
            // Of no effect, and no harm.
            loop.stop()
            try loop.close()
            for handle in [timer, callback] {
                #expect(!handle.isPending)
                handle.cancel()
            }
            #expect(!loop.isRunning && !loop.isOnLoop && Loops.running == nil)
        }
    }

    /// How a task's waits on a loop ended.
    private static func outcome(of wait: () async throws -> Void) async -> String {
        do {
            try await wait()
            return "returned"
        } catch let error as LoopError {
            return "\(error)"
        } catch {
            return "another error: \(error)"
        }
    }

    @Test("E9 what waits when the loop is closed ends with .closed", arguments: LoopKind.available)
    func closeEndsWaits(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let pipe = try PipePair()
            defer { pipe.close() }
            let full = try PipePair()
            defer { full.close() }
            full.fillUp()
            let waits: [@Sendable () async throws -> Void] = [
                { try await loop.sleep(for: .seconds(3600)) },
                { try await LoopClock().sleep(for: .seconds(3600)) },
                { try await loop.readable(pipe.readEnd) },
                { try await loop.writable(full.writeEnd) },
            ]
            let ended = waits.map { wait in
                let (ended, journal) = (Latch(), Journal<String>())
                loop.spawn {
                    journal.note(await Self.outcome(of: wait))
                    // The loop is of no more use, which does not hang either.
                    journal.note(await Self.outcome { try await loop.sleep(for: .zero) })
                    ended.open()
                }
                return (ended, journal)
            }
            let waiting = try loop.pass {
                let statistics = loop.statistics
                return statistics.timers == 2 && statistics.operationsInKernel + statistics.armedOperations == 2
            }
            #expect(waiting)
            try loop.close()
            for (ended, journal) in ended {
                #expect(ended.wait(), "a task hangs")
                #expect(journal.entries == ["\(LoopError.closed)", "\(LoopError.closed)"])
            }
        }
    }

    @Test("E9 a task that had not begun when the loop was closed comes to its end", arguments: LoopKind.available)
    func closeOrphans(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let pipe = try PipePair()
            defer { pipe.close() }
            let journals = [Journal<String>(), Journal<String>()]
            let ends = [Latch(), Latch()]
            func spawn(_ index: Int) {
                loop.spawn {
                    journals[index].note(await Self.outcome { try await loop.sleep(for: .seconds(3600)) })
                    journals[index].note(await Self.outcome { try await loop.readable(pipe.readEnd) })
                    journals[index].note(await Self.outcome { try loop.callSoon {} })
                    ends[index].open()
                }
            }
            spawn(0)
            try loop.close()
            spawn(1)
            for (end, journal) in zip(ends, journals) {
                #expect(end.wait(), "a task hangs")
                #expect(journal.entries == Array(repeating: "\(LoopError.closed)", count: 3))
            }
        }
    }

    /// A task that finds the door shut is run elsewhere at once, so it may ask the loop for something before the close
    /// has come to its end.
    @Test("E9 tasks started while the loop is being closed end with .closed", arguments: LoopKind.available)
    func closeRacesWithSpawn(kind: LoopKind) async throws {
        try await onThread {
            for _ in 0..<30 {
                let loop = try kind.makeLoop()
                for _ in 0..<2000 { try loop.callLater(.seconds(3600)) {} }  // so that close takes its time
                let outcomes = Journal<String>()
                let (begun, finished) = (Latch(), Latch())
                let count = 500
                onOtherThread {
                    for number in 0..<count {
                        loop.spawn {
                            outcomes.note(await Self.outcome { try await loop.sleep(for: .seconds(3600)) })
                            if outcomes.entries.count == count { finished.open() }
                        }
                        if number == 1 { begun.open() }
                    }
                }
                #expect(begun.wait())
                try loop.close()
                #expect(finished.wait(), "a task hangs")
                #expect(Set(outcomes.entries) == ["\(LoopError.closed)"])
            }
        }
    }

    // MARK: E11

    @Test("E11 a loop dropped without close gives back its descriptors", arguments: LoopKind.available)
    func dropDescriptors(kind: LoopKind) async throws {
        try await onThread {
            let counts = try withDescriptorsOfItsOwn { () -> [Int] in
                func drop(afterRun: Bool) throws -> Int {
                    let loop = try kind.makeLoop()
                    try loop.callLater(.seconds(3600)) {}
                    if afterRun { try loop.runOnce(.noWait) }
                    return try withExtendedLifetime(loop) { try descriptorCount() }
                }
                let before = try descriptorCount()
                let first = try drop(afterRun: false)
                let between = try descriptorCount()
                let second = try drop(afterRun: true)
                return [before, first, between, second, try descriptorCount()]
            }
            #expect(counts.count == 5)
            #expect(counts[1] > counts[0] && counts[3] > counts[0])
            #expect(counts[2] == counts[0] && counts[4] == counts[0])
        }
    }

    @Test("E11 a loop dropped without close drops what was queued", arguments: LoopKind.available)
    func dropCallbacks(kind: LoopKind) async throws {
        try await onThread {
            let ran = Latch()
            weak var ofCallback: Witness?
            weak var ofTimer: Witness?
            weak var ofPost: Witness?
            weak var dropped: (any Loop)?
            func makeAndDrop() throws -> Handle {
                let loop = try kind.makeLoop()
                dropped = loop
                let witnesses = (Witness(), Witness(), Witness())
                (ofCallback, ofTimer, ofPost) = witnesses
                try loop.callSoon { withExtendedLifetime(witnesses.0) { ran.open() } }
                try loop.callSoonThreadsafe { [witness = witnesses.2] in withExtendedLifetime(witness) { ran.open() } }
                return try loop.callLater(.seconds(3600)) { withExtendedLifetime(witnesses.1) { ran.open() } }
            }
            // A handle does not keep its loop alive, and is safe to use afterwards.
            let handle = try makeAndDrop()
            #expect(dropped == nil)
            #expect(ofCallback == nil && ofTimer == nil && ofPost == nil)
            #expect(!ran.isOpen)
            #expect(!handle.isPending)
            handle.cancel()
        }
    }

    @Test(
        "E8 F27 a child that was forked between a close and its pass closes its loop", .realKernel("fork"),
        arguments: LoopKind.available)
    func forkedWhileClosing(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                let (connection, peer) = try makePair(on: loop)
                let listener = try Listener(on: loop, port: 0)
                let own = Unmanaged.passRetained(Own(loop))
                var child: Int32 = -1
                try loop.callSoon {
                    connection.abort()
                    listener.close()
                    child = test_fork_run(
                        { context in
                            let own = Unmanaged<Own>.fromOpaque(context!).takeUnretainedValue()
                            return (try? own.loop.close()) != nil ? 0 : 1
                        }, own.toOpaque())
                }
                try loop.runOnce(.noWait)
                own.release()
                #expect(child == 0)
                #expect(connection.isClosed)
                try loop.close()
                peer.close()
            }
        }
    }

    private final class Own {
        let loop: any Loop
        init(_ loop: any Loop) { self.loop = loop }
    }

    /// The selector's operations are bound to no thread.
    @Test(
        "E8 F23 a loop closed on another thread than it ran on closes each descriptor once", .realKernel("eventfd"),
        .enabled(if: LoopKind.available.contains(.proactor)))
    func closedElsewhere() async throws {
        await #expect(processExitsWith: .success) {
            try await onThread {
                let loop = try ProactorLoop()
                let held = Objects()
                try onJoinedThread {
                    held.objects.append(try makePair(on: loop).0)
                    held.objects.append(try Listener(on: loop, port: 0))
                    let listener = try Listener(on: loop, port: 0)
                    try listener.start { _ in }
                    held.objects.append(listener)
                    for _ in 0..<2 { try loop.runOnce(.noWait) }
                }
                // Whoever opens descriptors while the loop is being closed gets the numbers that it has just freed.
                let opener = Log<Int32>()
                try {
                    let witness = Witness { for _ in 0..<8 { opener.append(test_eventfd(0)) } }
                    try loop.callSoon { withExtendedLifetime(witness) {} }
                }()
                try loop.close()
                let areOpen = opener.all.count == 8 && opener.all.allSatisfy { fcntl($0, F_GETFD) >= 0 }
                // Memory lent to the kernel is kept for good (K5), of which LeakSanitizer would tell at an ordinary exit.
                _exit(areOpen ? EXIT_SUCCESS : EXIT_FAILURE)
            }
        }
    }

    private final class Objects: @unchecked Sendable { var objects: [AnyObject] = [] }
}
