// SPDX-License-Identifier: Apache-2.0
//
// TransportTests.swift: handlers: when the loss comes, pausing either way, exchanging them, and what they throw.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error {}

/// A handler whose callbacks may throw, and note what the connection looks like meanwhile.
private final class Script: StreamHandler {
    let journal: Log<String>
    var bytes: [UInt8] = []
    var onMade: (Connection) throws -> Void = { _ in }
    var onReceive: (Connection) throws -> Void = { _ in }
    var onEnd: (Connection) throws -> Void = { $0.closeSoon() }
    var onLoss: (Connection, LoopError?) throws -> Void = { _, _ in }

    init(_ journal: Log<String> = Log()) { self.journal = journal }

    func made(_ connection: Connection) throws {
        journal.append("made")
        try onMade(connection)
    }
    func received(_ received: consuming ReceivedBytes, on connection: Connection) throws {
        journal.append("received")
        bytes += received.copy()
        try onReceive(connection)
    }
    func ended(_ connection: Connection) throws {
        journal.append("ended")
        try onEnd(connection)
    }
    func lost(_ connection: Connection, error: LoopError?) throws {
        journal.append("lost")
        try onLoss(connection, error)
    }
    func pauseWriting(_ connection: Connection) { journal.append("pause") }
    func resumeWriting(_ connection: Connection) { journal.append("resume") }
}

@Suite(.timeLimit(.minutes(1)))
struct TransportTests {
    @Test(
        "P3 the loss is told once, outside of the call that causes it, and then the descriptor closes",
        arguments: LoopKind.available)
    func lossIsScheduled(kind: LoopKind) async throws {
        for way in ["abort", "reset", "closeSoon", "close"] {
            try await onLoop(kind) { loop in
                let (connection, _) = try await makeConnection(on: loop)
                let script = Script()
                script.onLoss = { connection, error in
                    #expect(error == nil)
                    #expect(!connection.isClosed)
                    #expect(fcntl(connection.descriptor, F_GETFD) >= 0)
                    throw Mishap()  // and even then
                }
                let reports = Log<String>()
                loop.onUnhandledError = { reports.append("\($1.message): \($1.error)") }
                try connection.start(script)
                switch way {
                case "abort": connection.abort()
                case "reset": connection.abort(reset: true)
                case "closeSoon": connection.closeSoon()
                default: break
                }
                #expect(script.journal.all == ["made"])
                if way == "close" { await connection.close() }
                try await until("it is closed", on: loop) { connection.isClosed }
                connection.abort()
                try await loop.sleep(for: .zero)
                #expect(script.journal.all == ["made", "lost"])
                #expect(reports.all == ["StreamHandler.lost: Mishap()"])
            }
        }
    }

    @Test("P1 P3 what is queued leaves before the loss is told", arguments: LoopKind.available)
    func flushThenLoss(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let script = Script()
            var unsent = -1
            script.onLoss = { connection, _ in unsent = connection.unsentByteCount }
            try connection.start(script)
            let size = 4 << 20
            try connection.send(copying: pattern(size).span.bytes)
            connection.closeSoon()
            // The peer does not read yet, so neither can the queue be empty nor the loss be told.
            for _ in 0..<5 { try await loop.sleep(for: .zero) }
            #expect(!script.journal.all.contains("lost"))
            #expect(connection.unsentByteCount > 0)
            let received = try await onThread { try peer.receiveToEnd() }
            #expect(received.count == size)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(script.journal.all == ["made", "pause", "resume", "lost"])
            #expect(unsent == 0)
        }
    }

    @Test("P3 a flush that breaks is the loss's error", arguments: LoopKind.available)
    func brokenFlush(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let script = Script()
            var told: LoopError?
            script.onLoss = { told = $1 }
            try connection.start(script)
            try connection.send(copying: pattern(4 << 20).span.bytes)
            connection.closeSoon()
            peer.reset()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect([ECONNRESET, EPIPE].contains(told.errno))
        }
    }

    @Test(
        "P10 P11 a paused handler hears nothing, and everything in order once it goes on", arguments: LoopKind.available
    )
    func pausedReading(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let script = Script()
            script.onMade = { $0.pauseReading() }
            script.onReceive = { $0.pauseReading() }
            try connection.start(script)
            #expect(!connection.isReading)
            let sent = pattern(200_000)
            try peer.send(sent)
            try peer.finishWriting()
            for _ in 0..<5 { try await loop.sleep(for: .zero) }
            #expect(script.journal.all == ["made"])
            // Each delivery pauses the next.
            var rounds = 0
            while script.bytes.count < sent.count {
                let before = script.journal.all.count
                connection.resumeReading()
                connection.resumeReading()
                #expect(connection.isReading)
                try await until("one is delivered", on: loop) { script.journal.all.count > before }
                #expect(script.journal.all.count == before + 1)
                rounds += 1
            }
            #expect(rounds > 1)
            #expect(difference(script.bytes, sent) == nil)
            #expect(!script.journal.all.contains("ended"))
            connection.resumeReading()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(script.journal.all.suffix(2) == ["ended", "lost"])
            connection.resumeReading()
            #expect(!connection.isReading)
        }
    }

    @Test("P10 the end is told once, however often reading is resumed", arguments: LoopKind.available)
    func endOnce(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let script = Script()
            script.onEnd = { _ in }
            try connection.start(script)
            try peer.finishWriting()
            try await until("the end is told", on: loop) { script.journal.all.count == 2 }
            for _ in 0..<5 {
                connection.pauseReading()
                connection.resumeReading()
                try await loop.sleep(for: .zero)
            }
            #expect(script.journal.all == ["made", "ended"])
            // A loss reaches the paused, too.
            connection.pauseReading()
            connection.abort()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(script.journal.all == ["made", "ended", "lost"])
        }
    }

    @Test("P14 a handler that takes over gets the rest of the batch, and the loss", arguments: LoopKind.available)
    func exchanged(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let (first, second) = (Script(), Script())
            first.onReceive = { try $0.start(second) }
            let sent = pattern(300_000)
            first.onMade = { $0.pauseReading() }
            try connection.start(first)
            try peer.send(sent)
            // Several leases are there when the first is delivered.
            try await until("much is here", on: loop) { kind == .selector || loop.statistics.leasedBuffers > 1 }
            connection.resumeReading()
            try await until("all is here", on: loop) { first.bytes.count + second.bytes.count == sent.count }
            #expect(first.journal.all == ["made", "received"])
            #expect(second.journal.all.prefix(2) == ["made", "received"])
            #expect(difference(first.bytes + second.bytes, sent) == nil)
            peer.close()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(first.journal.all == ["made", "received"])
            #expect(second.journal.all.suffix(2) == ["ended", "lost"])
        }
    }

    @Test(
        "P8 a handler is paused within the write that is too much, once, and resumed at the low mark",
        arguments: LoopKind.available)
    func pausedWriting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let script = Script()
            try connection.start(script)
            connection.writeLimits = try WriteLimits(high: 1000, low: 100)
            try connection.send(copying: pattern(1000).span.bytes)
            #expect(script.journal.all == ["made"])  // strictly above
            try connection.send(copying: pattern(1).span.bytes)
            #expect(script.journal.all == ["made", "pause"])
            try connection.send(copying: [pattern(2 << 20), [], pattern(2 << 20)])
            #expect(script.journal.all == ["made", "pause"])
            for _ in 0..<5 { try await loop.sleep(for: .zero) }
            #expect(script.journal.all == ["made", "pause"])
            let reader = Task { try await onThread { try peer.receiveToEnd() } }
            try await until("there is room", on: loop) { script.journal.all.count == 3 }
            #expect(script.journal.all == ["made", "pause", "resume"])
            #expect(connection.unsentByteCount <= 100)
            try connection.send(copying: pattern(5000).span.bytes)
            #expect(script.journal.all.suffix(2) == ["resume", "pause"])
            connection.closeSoon()
            #expect(try await reader.value.count == 1001 + (4 << 20) + 5000)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(script.journal.all.suffix(2) == ["resume", "lost"])
        }
    }

    @Test("P7 write limits: what they are when one is given, and which are refused")
    func limits() throws {
        #expect(WriteLimits() == (try WriteLimits(high: 65536, low: 16384)))
        let fromLow = try WriteLimits(low: 10)
        #expect(fromLow.high == 40 && fromLow.low == 10)
        let fromHigh = WriteLimits(high: 100)
        #expect(fromHigh.high == 100 && fromHigh.low == 25)
        for (high, low) in [(9, 10), (-1, -2), (5, -1)] {
            let wanted = LoopError.io(IOError(errno: EINVAL, operation: "write limits, high \(high) and low \(low)"))
            #expect(throws: wanted) { _ = try WriteLimits(high: high, low: low) }
        }
        #expect(throws: LoopError.self) { _ = try WriteLimits(low: -1) }
        #expect(throws: LoopError.self) { _ = try WriteLimits(low: .max) }
    }

    @Test("P7 new limits may pause at once, and never resume", arguments: LoopKind.available)
    func newLimits(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, _) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let script = Script()
            try connection.start(script)
            try connection.send(copying: pattern(1000).span.bytes)
            #expect(script.journal.all == ["made"])
            connection.writeLimits = WriteLimits(high: 0)
            #expect(script.journal.all == ["made", "pause"])
            connection.writeLimits = WriteLimits()
            #expect(script.journal.all == ["made", "pause"])
            connection.abort()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(script.journal.all == ["made", "pause", "lost"])
        }
    }

    @Test(
        "Q3 what received and ended throw ends the connection, what others throw is reported",
        arguments: LoopKind.available)
    func throwing(kind: LoopKind) async throws {
        for callback in ["made", "received", "ended"] {
            try await onLoop(kind) { loop in
                let reports = Log<String>()
                loop.onUnhandledError = { reports.append("\($1.message): \($1.error)") }
                let (connection, peer) = try await makeConnection(on: loop)
                let script = Script()
                var told: LoopError?
                script.onLoss = { told = $1 }
                if callback == "made" { script.onMade = { _ in throw Mishap() } }
                if callback == "received" { script.onReceive = { _ in throw Mishap() } }
                if callback == "ended" { script.onEnd = { _ in throw Mishap() } }
                try connection.start(script)
                try peer.send([1])
                try await until("it is here", on: loop) { script.journal.all.contains("received") }
                try? peer.send([2])
                try? peer.finishWriting()
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(reports.all == ["StreamHandler.\(callback): Mishap()"])
                let failed = LoopError.handlerFailed(callback: callback, error: "Mishap()")
                #expect(told == (callback == "made" ? nil : failed))
                if callback == "received" { #expect(script.journal.all == ["made", "received", "lost"]) }
            }
        }
    }

    @Test("Q4 a handler receives into memory of its own; none is an error", arguments: LoopKind.available)
    func buffered(kind: LoopKind) async throws {
        final class Buffered: BufferedStreamHandler {
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 7, alignment: 1)
            var bytes: [UInt8] = []
            var lent = 7
            var told: LoopError?
            deinit { memory.deallocate() }
            func withReceiveBuffer(hint: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int) {
                #expect(hint > 0)
                _ = body(UnsafeMutableRawBufferPointer(rebasing: memory[..<lent]))
            }
            func received(count: Int, on connection: Connection) { bytes += memory[..<count] }
            func lost(_ connection: Connection, error: LoopError?) { told = error }
        }
        for lent in [7, 0] {
            try await onLoop(kind) { loop in
                loop.onUnhandledError = { _, _ in }
                let (connection, peer) = try await makeConnection(on: loop)
                let handler = Buffered()
                handler.lent = lent
                try connection.start(handler)
                let sent = pattern(1000)
                try peer.send(sent)
                try peer.finishWriting()
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(handler.bytes == (lent == 0 ? [] : sent))
                let failed = LoopError.handlerFailed(callback: "received", error: "\(EmptyReceiveBuffer())")
                #expect(handler.told == (lent == 0 ? failed : nil))
            }
        }
    }

    @Test("C7 who connects goes on before anything is received", arguments: LoopKind.available)
    func madeFirst(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            var accepted: [Connection] = []
            try listener.start {
                accepted.append($0)
                do { try $0.send(copying: [[1, 2, 3]]) } catch { Issue.record(error) }
            }
            let connection = try await Connection.connect(to: listener.address, on: loop)
            let script = Script()
            script.onMade = { #expect($0.remoteAddress == listener.address) }
            try connection.start(script)
            #expect(script.journal.all == ["made"])
            try await until("it is here", on: loop) { script.bytes == [1, 2, 3] }
            listener.close()
            connection.abort()
        }
    }

    @Test(
        "P3 handlers of a loop that closes are told, the paused and those that flush as well",
        arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let journals = (0..<3).map { _ in Log<String>() }
            let peers = try loop.run {
                try (0..<3).map { index in
                    let (connection, peer) = try makePair(on: loop)
                    try connection.start(Script(journals[index]))
                    if index == 1 { connection.pauseReading() }
                    if index == 2 {
                        try connection.send(copying: pattern(4 << 20).span.bytes)
                        connection.closeSoon()
                    }
                    return peer
                }
            }
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            #expect(journals.allSatisfy { !$0.all.contains("lost") })
            try loop.close()
            #expect(journals.allSatisfy { $0.all.last == "lost" && $0.all.count { $0 == "lost" } == 1 })
            for peer in peers { peer.close() }
        }
    }
}
