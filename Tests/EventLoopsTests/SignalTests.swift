// SPDX-License-Identifier: Apache-2.0
//
// SignalTests.swift: signals as callbacks and as sequences, one on several loops, and forks.

import CLoopCore
import TestSupportC
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A real-time signal for one test on one kind of loop, as tests run side by side. Unblocked on this thread, and ignored
/// by whoever has no handler for it.
private func ownSignal(_ test: Int32, _ kind: LoopKind) -> Int32 {
    test_signal_own(test * 2 + (kind == .selector ? 0 : 1))
}

private let ignored: Int32 = 1
private let handled: Int32 = 2

private struct Mishap: Error {}

@Suite("Signals", .realKernel("signals"), .timeLimit(.minutes(1)))
struct SignalTests {
    // MARK: G1

    @Test("G1 N17 a signal runs its callback in a pass, on the loop's thread", arguments: LoopKind.available)
    func callback(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(0, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var count = 0
            try loop.onSignal(signal) {
                #expect(loop.isOnLoop)
                count += 1
            }
            for expected in 1...3 {
                raise(signal)
                #expect(count == expected - 1)
                try loop.runOnce(.noWait)
                #expect(count == expected)
                try loop.runOnce(.noWait)
                #expect(count == expected)
            }
        }
    }

    @Test("G1 N17 a signal handled by another thread wakes a loop that sleeps", arguments: LoopKind.available)
    func wake(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(1, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            test_signal_block(signal, 1)  // so that it is the other thread that handles it
            let runner = lc_thread_id()
            var count = 0
            try loop.onSignal(signal) {
                count += 1
                loop.stop()
            }
            for expected in 1...20 {
                let asleep = Latch()
                try loop.callSoon {
                    onOtherThread {
                        test_signal_block(signal, 0)
                        if waitUntilAsleep(runner) { asleep.open() }
                        raise(signal)
                        test_signal_block(signal, 1)
                    }
                }
                try loop.runWatched()
                #expect(count == expected)
                #expect(asleep.wait())
            }
        }
    }

    @Test(
        "G1 a second callback replaces the first, and what one throws goes to the hook", arguments: LoopKind.available)
    func replace(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(2, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let told = Log<Int32?>()
            loop.onUnhandledError = { _, unhandled in
                #expect(unhandled.error is Mishap)
                told.append(unhandled.signal)
            }
            weak var witness: Witness?
            do {
                let captured = Witness()
                witness = captured
                try loop.onSignal(signal) {
                    _ = captured
                    Issue.record("it was replaced")
                }
            }
            #expect(witness != nil)
            raise(signal)  // and the second is told what was meant for the first
            try loop.onSignal(signal) { throw Mishap() }
            #expect(witness == nil)
            try loop.runOnce(.noWait)
            #expect(told.all == [signal])
            raise(signal)
            try loop.runOnce(.noWait)
            #expect(told.all == [signal, signal])
        }
    }

    /// The loop's thread, like all that Dispatch and its threads make, blocks the signal here.
    @Test("G1 N17 the main thread lets signals through for loops on other threads", arguments: LoopKind.available)
    func mainThread(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                test_signal_block(SIGUSR1, 1)
                var count = 0
                try loop.onSignal(SIGUSR1) {
                    count += 1
                    loop.stop()
                }
                kill(getpid(), SIGUSR1)
                try loop.runWatched()
                #expect(count == 1)
            }
        }
    }

    @Test(
        "G1 F47 what comes again before it is told is told once, and afterwards anew", arguments: LoopKind.available)
    func coalesced(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(3, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var count = 0
            try loop.onSignal(signal) {
                count += 1
                if count == 1 { raise(signal) }
            }
            for _ in 0..<100 { raise(signal) }
            try loop.runOnce(.noWait)
            #expect(count == 1)
            try loop.runOnce(.noWait)
            #expect(count == 2)
            try loop.runOnce(.noWait)
            #expect(count == 2)
        }
    }

    @Test("G1 G2 what cannot be handled is refused by number", arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let reserved: Int32 = 32  // the C library's own
            let fine = kind == .selector ? SIGUSR2 : SIGURG  // nobody else's here
            for number in [SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, 0, -1, 65, .max, reserved] {
                #expect(throws: LoopError.invalidSignal(number)) { try loop.onSignal(number) {} }
                #expect(throws: LoopError.invalidSignal(number)) { _ = try loop.signals(fine, number) }
                #expect(!loop.removeSignalHandler(number))
            }
            // The one that could be had was let go.
            #expect(test_signal_disposition(fine) == 0)
            await Task.detached {
                #expect(throws: LoopError.wrongThread(operation: "onSignal")) { try loop.onSignal(fine) {} }
                #expect(throws: LoopError.wrongThread(operation: "signals")) { _ = try loop.signals(fine) }
            }.value
        }
    }

    // MARK: G2

    @Test("G2 removing a handler tells whether there was one, and restores what was", arguments: LoopKind.available)
    func remove(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(4, kind)
            let loops = [try kind.makeLoop(), try kind.makeLoop()]
            defer { for loop in loops { try? loop.close() } }
            #expect(!loops[0].removeSignalHandler(signal))
            for loop in loops { try loop.onSignal(signal) { Issue.record("it was removed") } }
            #expect(test_signal_disposition(signal) == handled)
            // Also for what has come already.
            raise(signal)
            #expect(loops[0].removeSignalHandler(signal))
            #expect(!loops[0].removeSignalHandler(signal))
            #expect(test_signal_disposition(signal) == handled)
            #expect(loops[1].removeSignalHandler(signal))
            #expect(test_signal_disposition(signal) == ignored)
            try loops[1].runOnce(.noWait)
            // And anew: what came before is not for the new one.
            var count = 0
            try loops[0].onSignal(signal) { count += 1 }
            try loops[0].runOnce(.noWait)
            #expect(count == 0)
            raise(signal)
            try loops[0].runOnce(.noWait)
            #expect(count == 1)
        }
    }

    @Test("G2 a handler somebody else has set meanwhile is left alone", arguments: LoopKind.available)
    func foreign(kind: LoopKind) async throws {
        try await onThread {
            let number = ownSignal(5, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try loop.onSignal(number) {}
            signal(number, SIG_DFL)
            #expect(loop.removeSignalHandler(number))
            #expect(test_signal_disposition(number) == 0)
        }
    }

    /// Of the records of loops that come and go, the handler on the other thread may hold any.
    @Test("G2 F47 handlers come and go in a storm of signals from another thread", arguments: LoopKind.available)
    func comeAndGo(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(6, kind)
            let stays = try kind.makeLoop()
            defer { try? stays.close() }
            var count = 0
            try stays.onSignal(signal) { count += 1 }
            let begun = Latch()
            let enough = Latch()
            let over = Latch()
            onOtherThread {
                test_signal_block(signal, 0)
                while !enough.isOpen {
                    raise(signal)
                    begun.open()
                }
                test_signal_block(signal, 1)
                over.open()
            }
            #expect(begun.wait())
            var round = 0
            while round < 50 || count < 3 {
                round += 1
                let loop = try kind.makeLoop()
                try loop.onSignal(signal) {}
                try loop.runOnce(.noWait)
                if round.isMultiple(of: 2) { #expect(loop.removeSignalHandler(signal)) }
                try loop.runOnce(.noWait)
                try loop.close()
                try stays.runOnce(.noWait)
            }
            enough.open()
            #expect(over.wait())
            try stays.runOnce(.noWait)
            let before = count
            raise(signal)
            try stays.runOnce(.noWait)
            #expect(count == before + 1)
        }
    }

    // MARK: G3

    @Test("G3 closing a loop removes its handlers and frees them", arguments: LoopKind.available)
    func close(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(7, kind)
            let loop = try kind.makeLoop()
            weak var witness: Witness?
            do {
                let captured = Witness()
                witness = captured
                try loop.onSignal(signal) {
                    _ = captured
                    Issue.record("the loop is closed")
                }
            }
            raise(signal)
            try loop.close()
            #expect(test_signal_disposition(signal) == ignored)
            #expect(witness == nil)
            #expect(!loop.removeSignalHandler(signal))
            #expect(throws: LoopError.closed) { try loop.onSignal(signal) {} }
            #expect(throws: LoopError.closed) { _ = try loop.signals(signal) }
        }
    }

    @Test("G3 a forked child handles the signal no more, and its parent still does", arguments: LoopKind.available)
    func fork(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(8, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var count = 0
            try loop.onSignal(signal) { count += 1 }
            var number = signal
            let disposition = test_fork_run({ test_signal_disposition($0!.load(as: Int32.self)) }, &number)
            #expect(disposition == ignored)
            #expect(test_signal_disposition(signal) == handled)
            raise(signal)
            try loop.runOnce(.noWait)
            #expect(count == 1)
        }
    }

    /// Also where the child has the handler still, as no fork hooks ran in it: it shares the descriptor that wakes.
    @Test("G3 a signal to a forked child does not wake its parent's loop", arguments: LoopKind.available)
    func forkWakes(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(9, kind)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var count = 0
            try loop.onSignal(signal) { count += 1 }
            try loop.withRunning {
                try loop.pass()
                let descriptor = try #require(loop.backendFD)
                #expect(try loop.prepareToWait() == nil)
                #expect(test_signal_in_bare_child(signal) == 0)
                #expect(!isReadable(descriptor))
                raise(signal)
                #expect(isReadable(descriptor))
                try loop.pass()
                #expect(count == 1)
            }
        }
    }

    // MARK: N17

    @Test("F48 N17 one signal on several loops is told to each, once", arguments: LoopKind.available)
    func several(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(10, kind)
            let loops = try (LoopKind.available + [kind, kind]).map { try $0.makeLoop() }
            defer { for loop in loops { try? loop.close() } }
            var counts = loops.map { _ in 0 }
            for (index, loop) in loops.enumerated() { try loop.onSignal(signal) { counts[index] += 1 } }
            for round in 1...3 {
                raise(signal)
                for loop in loops { for _ in 0..<3 { try loop.runOnce(.noWait) } }
                #expect(counts == loops.map { _ in round })
            }
            // One lets go, then another is closed: the rest are told.
            #expect(loops[1].removeSignalHandler(signal))
            try loops[0].close()
            raise(signal)
            for loop in loops.dropFirst() { try loop.runOnce(.noWait) }
            #expect(counts == [3, 3] + loops.dropFirst(2).map { _ in 4 })
        }
    }

    @Test("F48 N17 loops on several threads are all woken by one signal", arguments: LoopKind.available)
    func severalThreads(kind: LoopKind) async throws {
        try await onThread {
            let signal = ownSignal(11, kind)
            let told = Journal<Int>()
            let ready = (0..<3).map { _ in Latch() }
            let over = (0..<3).map { _ in Latch() }
            for index in 0..<3 {
                onOtherThread {
                    defer { over[index].open() }
                    guard let loop = try? kind.makeLoop() else { return }
                    defer { try? loop.close() }
                    let added: Void? = try? loop.onSignal(signal) {
                        told.note(index)
                        loop.stop()
                    }
                    _ = try? loop.callSoon { ready[index].open() }
                    if added != nil { try? loop.runWatched() } else { ready[index].open() }
                }
            }
            for latch in ready { #expect(latch.wait()) }
            raise(signal)
            for latch in over { #expect(latch.wait()) }
            #expect(told.entries.sorted() == [0, 1, 2])
            #expect(test_signal_disposition(signal) == ignored)
        }
    }

    // MARK: Sequences

    @Test("G1 a sequence keeps each signal once until it is read", arguments: LoopKind.available)
    func sequence(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let low = ownSignal(12, kind)
            let high = ownSignal(13, kind)
            let signals = try loop.signals(low, high, low)
            let other = try loop.signals(high)
            let told = Log<Int32>()
            try loop.onSignal(high) { told.append(high) }
            for number in [high, low, high] { raise(number) }
            try await until("they have been told", on: loop) { !told.all.isEmpty }
            var iterator = signals.makeAsyncIterator()
            #expect(await iterator.next() == low)
            #expect(await iterator.next() == high)
            let next = loop.spawn { [iterator] in
                var iterator = iterator
                return await iterator.next()
            }
            raise(low)
            #expect(try await next.value == low)
            for await number in other {
                #expect(number == high)
                break
            }
            #expect(told.all == [high])
        }
    }

    @Test("G1 G3 a sequence ends with its loop, after what it has kept", arguments: LoopKind.available)
    func sequenceClosed(kind: LoopKind) async throws {
        let number = Log<Int32>()
        let (signals, waiting, wait) = try await onThread {
            let signal = ownSignal(14, kind)
            number.append(signal)
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let signals = try loop.signals(signal)
            let waiting = try loop.signals(signal)
            let begun = Latch()
            let wait = loop.spawn {
                var iterator = waiting.makeAsyncIterator()
                #expect(await iterator.next() == signal)
                begun.open()
                return await iterator.next()
            }
            raise(signal)
            #expect(try loop.pass { begun.isOpen })
            return (signals, waiting, wait)
        }
        withExtendedLifetime(waiting) {}
        var iterator = signals.makeAsyncIterator()
        #expect(await iterator.next() == number.all[0])
        #expect(await iterator.next() == nil)
        #expect(try await wait.value == nil)
        #expect(test_signal_disposition(number.all[0]) == ignored)
    }

    @Test("G1 G2 a sequence lets its signals go when it is cancelled, or dropped", arguments: LoopKind.available)
    func sequenceCancelled(kind: LoopKind) async throws {
        // There are but so many signals, hence a process of its own.
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let signal = test_signal_own(0)
                let kept = try loop.signals(signal)
                let wait = loop.spawn {
                    var iterator = kept.makeAsyncIterator()
                    return await iterator.next()
                }
                try await loop.sleep(for: .zero)
                #expect(test_signal_disposition(signal) == handled)
                wait.cancel()
                #expect(try await wait.value == nil)
                #expect(test_signal_disposition(signal) == ignored)
                var iterator = kept.makeAsyncIterator()
                #expect(await iterator.next() == nil)
                do {
                    let dropped = try loop.signals(signal)
                    #expect(test_signal_disposition(signal) == handled)
                    withExtendedLifetime(dropped) {}
                }
                #expect(test_signal_disposition(signal) == ignored)
                // On another thread it takes a pass.
                let elsewhere = Lock<LoopSignals?>(try loop.signals(signal))
                await Task.detached { elsewhere.withLock { $0 = nil } }.value
                try await until("it has been let go", on: loop) { test_signal_disposition(signal) == ignored }
            }
        }
    }
}

/// Whether it is, now.
private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
}
