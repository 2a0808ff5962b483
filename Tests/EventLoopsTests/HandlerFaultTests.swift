// SPDX-License-Identifier: Apache-2.0
//
// HandlerFaultTests.swift: callbacks and handlers that throw, close, cancel, or take their time. The others do not
// notice.

import Dispatch
import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Faults of handlers") struct HandlerFaultTests {
    private struct CallbackError: Error, Equatable { let number: Int }

    // MARK: F76

    /// All of it is due in one pass.
    @Test(
        "F76 a callback throws, handlers close and abort their connections, one cancels a task: the others go on",
        arguments: LoopKind.available)
    func manyFaults(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let errors = Log<Int?>()
            loop.onUnhandledError = { _, unhandled in errors.append((unhandled.error as? CallbackError)?.number) }
            defer { loop.onUnhandledError = nil }
            let pairs = try (0..<7).map { _ in try makePair(on: loop) }
            let waiting = pairs[6].0
            let victim = loop.spawn { try await waiting.read(atLeast: 1) }
            try await until("the victim waits", on: loop) { loop.waitingOperations == 1 }

            let handlers = (0..<6).map { _ in Notes() }
            handlers[0].onReceive = { try $0.send(copying: [UInt8(10)].span.bytes) }
            handlers[1].onReceive = { $0.closeSoon() }
            handlers[2].onReceive = { $0.abort() }
            handlers[3].onReceive = { _ in victim.cancel() }
            handlers[4].onReceive = { _ in try loop.callSoon { throw CallbackError(number: 3) } }
            handlers[5].onReceive = { try $0.send(copying: [UInt8(15)].span.bytes) }
            for (index, handler) in handlers.enumerated() { try pairs[index].0.start(handler) }
            for _ in 0..<3 { await Task.yield() }

            let ran = Log<Int>()
            try loop.callSoon { throw CallbackError(number: 1) }
            try loop.callSoon { ran.append(1) }
            try loop.callLater(.zero) { throw CallbackError(number: 2) }
            try loop.callLater(.zero) { ran.append(2) }
            for (_, peer) in pairs[..<6] { try peer.send([1]) }

            // Those that answer were not kept from it by those that did not.
            #expect(try await onThread { try pairs[0].1.receive() } == [10])
            #expect(try await onThread { try pairs[5].1.receive() } == [15])
            #expect(try await onThread { pairs[1].1.receiveEnd() } == 0)
            #expect(try await onThread { pairs[2].1.receiveEnd() } == 0)
            await #expect(throws: LoopError.cancelled(operation: "read")) { _ = try await victim.value }
            try await until("all callbacks ran", on: loop) { ran.all.count == 2 && errors.all.count == 3 }
            #expect(ran.all == [1, 2])
            #expect(errors.all == [1, 2, 3])
            // Each was told its own, once, and the lost ones of their loss.
            for (index, handler) in handlers.enumerated() {
                #expect(handler.events == ([1, 2].contains(index) ? ["received", "lost"] : ["received"]))
                #expect(handler.bytes == [1] && handler.lostError == nil)
            }
            // The connection of the task that was cancelled is whole.
            try pairs[6].1.send([5])
            #expect(try await waiting.read(atLeast: 1) == [5])
            for (connection, _) in pairs { connection.abort() }
            try await until("all are closed", on: loop) { pairs.allSatisfy { $0.0.isClosed } }
            #expect(loop.waitingOperations == 0)
            #expect(loop.statistics.leasedBuffers == 0)
            #expect(handlers.allSatisfy { $0.events == ["received", "lost"] })
        }
    }

    @Test("F76 the hook itself may close, cancel and call back", arguments: LoopKind.available)
    func busyHook(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let reader = loop.spawn { try await connection.read(atLeast: 1) }
            let sleeper = loop.spawn { try await loop.sleep(for: .seconds(3600)) }
            try await until("both wait", on: loop) { loop.waitingOperations == 1 }
            let told = Log<Int>()
            loop.onUnhandledError = { loop, unhandled in
                told.append((unhandled.error as? CallbackError)?.number ?? -1)
                connection.abort()
                sleeper.cancel()
                _ = try? loop.callSoon { told.append(100) }
            }
            defer { loop.onUnhandledError = nil }
            try loop.callSoon { throw CallbackError(number: 1) }
            try loop.callSoon { throw CallbackError(number: 2) }
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { _ = try await reader.value }
            await #expect(throws: LoopError.cancelled(operation: "sleep")) { try await sleeper.value }
            try await until("what the hook queued ran", on: loop) { told.all.count == 4 }
            #expect(told.all == [1, 2, 100, 100])
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(peer.receiveEnd() == 0)
        }
    }

    // MARK: F77

    /// The library has nothing yet that notices or reports such a stall; this is about what comes after it.
    @Test(
        "F77 a handler that blocks its loop: bytes, connections, calls and timers all arrive afterwards, once",
        arguments: LoopKind.available)
    func blocked(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (blockedIn, resumed) = (Latch(), Latch())
            let order = Log<String>()
            let listener = try Listener(on: loop, port: 0)
            let port = listener.address.port
            try listener.start { connection in
                connection.closeSoon()
                order.append("accept")
            }
            let pairs = try (0..<3).map { _ in try makePair(on: loop) }
            let readers = pairs.map { pair in loop.spawn { try await pair.0.readToEnd() } }
            try await until("all wait", on: loop) { loop.waitingOperations == 4 }

            let outside = Task.detached {
                try await onThread {
                    try #require(blockedIn.wait())
                    let end = LoopInstant.now.advanced(by: .milliseconds(300))
                    for number in 0..<100 { try loop.callSoonThreadsafe { order.append("call \(number)") } }
                    let peers = try (0..<5).map { _ in try Peer(to: port) }
                    for (index, (_, peer)) in pairs.enumerated() {
                        try peer.send(pattern(20_000 + index))
                        try peer.finishWriting()
                    }
                    // Every timer has long been due when the handler comes back.
                    while .now < end { usleep(1000) }
                    resumed.open()
                    return peers.map { $0.receiveEnd() }
                }
            }
            for number in 0..<50 {
                try loop.callLater(.milliseconds(5 * number)) { order.append("timer \(number)") }
            }
            // One that sets itself anew comes once for each time it was set.
            try loop.callLater(.milliseconds(260)) {
                order.append("late")
                try loop.callLater(.milliseconds(1)) { order.append("late again") }
            }
            let start = loop.now
            try loop.callSoon {
                blockedIn.open()
                #expect(resumed.wait())
            }
            let ends = try await outside.value
            #expect(start.duration(to: loop.now) >= .milliseconds(300))
            #expect(ends == [0, 0, 0, 0, 0])
            for (index, reader) in readers.enumerated() {
                #expect(difference(try await reader.value, pattern(20_000 + index)) == nil)
            }
            try await until("everything has come", on: loop) { order.all.count >= 157 }
            for _ in 0..<3 { await Task.yield() }
            let all = order.all
            #expect(all.count == 157)
            #expect(all.filter { $0 == "accept" }.count == 5)
            #expect(all.filter { $0.hasPrefix("call ") } == (0..<100).map { "call \($0)" })
            #expect(all.filter { $0.hasPrefix("timer ") } == (0..<50).map { "timer \($0)" })
            #expect(all.filter { $0.hasPrefix("late") } == ["late", "late again"])
            for (connection, _) in pairs { await connection.close() }
            listener.close()
            try await until("nothing is left", on: loop) {
                loop.waitingOperations == 0 && loop.statistics.connections == pairs.count
            }
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }
}
