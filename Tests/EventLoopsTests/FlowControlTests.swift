// SPDX-License-Identifier: Apache-2.0
//
// FlowControlTests.swift: when a handler is told to stop writing, and to go on.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

private struct Mishap: Error {}

/// Notes how much was queued when it was told to pause and to resume.
private final class Writer: StreamHandler {
    var events: [String] = []
    var atPause: [Int] = []
    var atResume: [Int] = []
    var onPause: (Connection) throws -> Void = { _ in }
    var onResume: (Connection) throws -> Void = { _ in }

    func received(_ bytes: consuming ReceivedBytes, on connection: Connection) {}

    func pauseWriting(_ connection: Connection) throws {
        events.append("pause")
        atPause.append(connection.unsentByteCount)
        try onPause(connection)
    }

    func resumeWriting(_ connection: Connection) throws {
        events.append("resume")
        atResume.append(connection.unsentByteCount)
        try onResume(connection)
    }

    func lost(_ connection: Connection, error: LoopError?) { events.append("lost") }
}

/// A connection whose kernel takes no more, with so many bytes queued.
private func stuck(_ loop: any Loop, _ handler: Writer) async throws -> (Connection, Peer) {
    let (connection, peer) = try makePair(on: loop)
    connection.writeLimits = WriteLimits(high: .max)
    try connection.start(handler)
    try connection.send(copying: pattern(megabyte).span.bytes)
    try await until("the kernel takes no more", on: loop) { loop.waitingOperations >= 2 }
    return (connection, peer)
}

@Suite("Flow control", .timeLimit(.minutes(1)))
struct FlowControlTests {
    // MARK: P7

    @Test("P7 limits: asyncio's defaults, and what follows from one of the two")
    func defaults() throws {
        let standard = WriteLimits()
        #expect(standard.high == 65_536 && standard.low == 16_384)
        #expect(WriteLimits(high: 1000).low == 250)
        #expect(WriteLimits(high: 0).low == 0 && WriteLimits(high: 0).high == 0)
        let onlyLow = try WriteLimits(low: 1000)
        #expect(onlyLow.high == 4000 && onlyLow.low == 1000)
        let both = try WriteLimits(high: 10, low: 10)
        #expect(both.high == 10 && both.low == 10)
        #expect(throws: LoopError.self) { try WriteLimits(high: 9, low: 10) }
        #expect(throws: LoopError.self) { try WriteLimits(high: 9, low: -1) }
        #expect(throws: LoopError.self) { try WriteLimits(low: .max) }
        do { _ = try WriteLimits(high: 9, low: 10) } catch {
            #expect(Optional(error).errno == EINVAL)
            #expect("\(error)".contains("high 9 and low 10"))
        }
    }

    @Test("P7 a change is looked at once: it may pause, it does not resume", arguments: LoopKind.available)
    func changes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let handler = Writer()
            let (connection, peer) = try await stuck(loop, handler)
            let queued = connection.unsentByteCount
            #expect(queued > 1000)
            // Exactly as many as allowed is not too many.
            connection.writeLimits = WriteLimits(high: queued)
            #expect(handler.events.isEmpty)
            connection.writeLimits = WriteLimits(high: queued - 1)
            #expect(handler.events == ["pause"])
            connection.writeLimits = WriteLimits(high: 0)
            #expect(handler.events == ["pause"])
            connection.writeLimits = WriteLimits(high: .max)
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(200)) }
            #expect(handler.events == ["pause"])
            // The next bytes that leave are measured by the new mark.
            connection.writeLimits = try WriteLimits(high: queued, low: queued - 1)
            _ = try await onThread { try peer.receive(exactly: megabyte) }
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
        }
    }

    @Test("P7 high 0: any queued byte is too much", arguments: LoopKind.available)
    func none(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            connection.writeLimits = WriteLimits(high: 0)
            try connection.start(handler)
            try connection.send(copying: [UInt8(1)].span.bytes)
            #expect(handler.events == ["pause"])
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
            #expect(handler.atResume == [0])
            #expect(try peer.receive() == [1])
        }
    }

    // MARK: P8

    @Test(
        "P8 a handler is paused strictly above high, within the send, once; and resumed at low",
        arguments: LoopKind.available)
    func pausesOnce(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let handler = Writer()
            let (connection, peer) = try await stuck(loop, handler)
            let queued = connection.unsentByteCount
            connection.writeLimits = try WriteLimits(high: queued + 100, low: queued / 2)
            try connection.send(copying: pattern(100).span.bytes)
            #expect(handler.events.isEmpty)
            try connection.send(copying: [UInt8(1)].span.bytes)
            #expect(handler.events == ["pause"])
            #expect(handler.atPause == [queued + 101])
            for _ in 0..<5 { try connection.send(copying: pattern(1000).span.bytes) }
            #expect(handler.events == ["pause"])
            // All of them count as one.
            try connection.send(copying: [[1, 2], [], [3]])
            _ = try await onThread { try peer.receive(exactly: megabyte + 5104) }
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
            #expect(handler.atResume.allSatisfy { $0 <= queued / 2 })
            try await until("all is sent", on: loop) { connection.unsentByteCount == 0 }
            #expect(handler.events == ["pause", "resume"])
        }
    }

    @Test("P5 P8 parts that are too many together: told once, behind the last", arguments: LoopKind.available)
    func parts(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            try connection.start(handler)
            try connection.send(copying: [pattern(50_000), [], pattern(50_000), pattern(50_000)])
            #expect(handler.events == ["pause"])
            #expect(handler.atPause == [150_000])
            _ = try await onThread { try peer.receive(exactly: 150_000) }
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
        }
    }

    @Test("P8 a handler that stops and goes on as it is told sends everything", arguments: LoopKind.available)
    func obedient(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            let sent = pattern(4 * megabyte)
            var next = 0
            var mayWrite = true
            func fill(_ connection: Connection) throws {
                while mayWrite, next < sent.count {
                    let part = sent[next..<min(next + 10_000, sent.count)]
                    next += part.count
                    try connection.send(copying: Array(part).span.bytes)
                    #expect(connection.unsentByteCount <= connection.writeLimits.high + 10_000)
                }
                if next == sent.count { connection.closeSoon() }
            }
            handler.onPause = { _ in mayWrite = false }
            handler.onResume = {
                mayWrite = true
                try fill($0)
            }
            try connection.start(handler)
            async let received = onThread { try peer.receiveToEnd() }
            try fill(connection)
            let all = try await received
            #expect(difference(all, sent) == nil)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(handler.events.filter { $0 == "pause" }.count > 10)
            #expect(handler.events.last == "lost")
        }
    }

    /// A task writes beside the handler: each waits, and hears, on its own account.
    @Test("P8 a handler is told of room, and so is a task that writes beside it", arguments: LoopKind.available)
    func beside(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            try connection.start(handler)
            let log = Log<Int>()
            let writer = loop.spawn {
                try await connection.write(pattern(megabyte))
                log.append(1)
                try await connection.flush()
                log.append(2)
            }
            try await until("both wait", on: loop) { handler.events == ["pause"] && loop.waitingOperations >= 2 }
            #expect(log.all.isEmpty)
            _ = try await onThread { try peer.receive(exactly: megabyte) }
            try await writer.value
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
            #expect(log.all == [1, 2])
        }
    }

    @Test("P8 errors thrown there are reported, and do no harm", arguments: LoopKind.available)
    func throwing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { told.append($1.message) }
            defer { loop.onUnhandledError = nil }
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            handler.onPause = { _ in throw Mishap() }
            handler.onResume = { _ in throw Mishap() }
            try connection.start(handler)
            try connection.send(copying: pattern(megabyte).span.bytes)
            #expect(told.all == ["StreamHandler.pauseWriting"])
            let received = try await onThread { try peer.receive(exactly: megabyte) }
            #expect(difference(received, pattern(megabyte)) == nil)
            try await until("it may go on", on: loop) { handler.events == ["pause", "resume"] }
            #expect(told.all == ["StreamHandler.pauseWriting", "StreamHandler.resumeWriting"])
            #expect(!connection.isClosing)
        }
    }

    @Test("P8 nobody is resumed whose connection broke", arguments: LoopKind.available)
    func brokenMeanwhile(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let handler = Writer()
            try connection.start(handler)
            try connection.send(copying: pattern(megabyte).span.bytes)
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations >= 2 }
            peer.close()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(handler.events == ["pause", "lost"])
        }
    }
}
