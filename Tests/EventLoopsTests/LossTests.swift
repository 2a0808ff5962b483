// SPDX-License-Identifier: Apache-2.0
//
// LossTests.swift: what handlers hear of the end: flushes that break, ends told once, loops that close.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

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
struct LossTests {
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
