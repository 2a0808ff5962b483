// SPDX-License-Identifier: Apache-2.0
//
// HandlerErrorTests.swift: handlers that throw, handlers with memory of their own, and what comes first.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error, CustomStringConvertible {
    let description: String
}

/// Throws in the callbacks it is told to.
private final class Thrower: StreamHandler {
    let place: Set<String>
    var events: [String] = []
    var lostError: LoopError?

    init(_ place: Set<String>) { self.place = place }

    private func note(_ event: String) throws {
        events.append(event)
        if place.contains(event) { throw Mishap(description: "in \(event)") }
    }

    func made(_ connection: Connection) throws { try note("made") }
    func received(_ bytes: consuming ReceivedBytes, on connection: Connection) throws { try note("received") }
    func ended(_ connection: Connection) throws {
        try note("ended")
        connection.closeSoon()
    }
    func lost(_ connection: Connection, error: LoopError?) throws {
        lostError = error
        try note("lost")
    }
}

@Suite("Errors and memory of handlers", .timeLimit(.minutes(1)))
struct HandlerErrorTests {
    // MARK: Q3

    @Test(
        "Q3 thrown by received or ended: reported, and the connection is aborted with it",
        arguments: LoopKind.available, ["received", "ended"])
    func fatal(kind: LoopKind, place: String) async throws {
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { told.append("\($1)") }
            defer { loop.onUnhandledError = nil }
            let (connection, peer) = try makePair(on: loop)
            let (other, otherPeer) = try makePair(on: loop)
            let (handler, bystander) = (Thrower([place]), Notes())
            try connection.start(handler)
            try other.start(bystander)
            // What is queued goes with it.
            try connection.send(copying: pattern(4 * 1024 * 1024).span.bytes)
            try peer.send([1])
            try peer.finishWriting()
            try otherPeer.send([1])
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(handler.events == (place == "ended" ? ["made", "received"] : ["made"]) + [place, "lost"])
            #expect(handler.lostError == .handlerFailed(callback: place, error: "in \(place)"))
            #expect(told.all == ["StreamHandler.\(place): in \(place)"])
            #expect(connection.unsentByteCount == 0)
            // The loop goes on.
            try await until("the other is served", on: loop) { bystander.bytes == [1] }
            #expect(!other.isClosing)
        }
    }

    @Test("Q3 thrown by made or lost: reported, and no more than that", arguments: LoopKind.available)
    func harmless(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { told.append("\($1)") }
            defer { loop.onUnhandledError = nil }
            let (connection, peer) = try makePair(on: loop)
            let handler = Thrower(["made", "lost"])
            try connection.start(handler)
            #expect(told.all == ["StreamHandler.made: in made"])
            #expect(!connection.isClosing)
            try peer.send([1])
            try await until("the byte is here", on: loop) { handler.events == ["made", "received"] }
            try peer.finishWriting()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(handler.events == ["made", "received", "ended", "lost"])
            #expect(handler.lostError == nil)
            #expect(told.all == ["StreamHandler.made: in made", "StreamHandler.lost: in lost"])
            #expect(peer.receiveEnd() == 0)
            try await until("it is gone", on: loop) { loop.statistics.leasedBuffers == 0 }
        }
    }

    @Test("Q3 thrown after closing, and while another error is told: one loss", arguments: LoopKind.available)
    func throwsAfterClosing(kind: LoopKind) async throws {
        final class Closer: StreamHandler {
            var events: [String] = []
            func received(_ bytes: consuming ReceivedBytes, on connection: Connection) throws {
                connection.closeSoon()
                throw Mishap(description: "after closing")
            }
            func lost(_ connection: Connection, error: LoopError?) throws {
                events.append("lost")
                connection.abort()
                throw Mishap(description: "in lost")
            }
        }
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { told.append("\($1)") }
            defer { loop.onUnhandledError = nil }
            let (connection, peer) = try makePair(on: loop)
            let handler = Closer()
            try connection.start(handler)
            try peer.send([1])
            try await until("it is closed", on: loop) { connection.isClosed }
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(200)) }
            #expect(handler.events == ["lost"])
            #expect(told.all == ["StreamHandler.received: after closing", "StreamHandler.lost: in lost"])
        }
    }

    // MARK: Q4

    @Test("Q4 a handler receives into memory of its own, in as many parts as it takes", arguments: LoopKind.available)
    func ownMemory(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for size in [1, 7, 1000, 64 * 1024] {
                let (connection, peer) = try makePair(on: loop)
                let handler = Bowl(size: size)
                try connection.start(handler)
                let sent = pattern(size == 1 ? 500 : 30_000)
                try peer.send(sent)
                try peer.finishWriting()
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(difference(handler.bytes, sent) == nil)
                #expect(handler.events == ["ended", "lost"])
                #expect(handler.lostError == nil)
                // Told of each part, and never asked for memory for nothing.
                #expect(handler.counts.reduce(0, +) == sent.count)
                #expect(handler.counts.allSatisfy { 1...size ~= $0 })
                #expect(zip(handler.hints, handler.counts).allSatisfy { $0 >= $1 })
                #expect(loop.statistics.leasedBuffers == 0)
            }
        }
    }

    @Test("Q4 no memory is fatal for the connection, as is an error in lending it", arguments: LoopKind.available)
    func noMemory(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<String>()
            loop.onUnhandledError = { told.append("\($1)") }
            defer { loop.onUnhandledError = nil }
            for throwing in [false, true] {
                let (connection, peer) = try makePair(on: loop)
                let handler = Bowl(size: throwing ? 10 : 0)
                if throwing { handler.onLend = { throw Mishap(description: "no memory") } }
                try connection.start(handler)
                try peer.send([1, 2, 3])
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(handler.events == ["lost"])
                #expect(handler.bytes.isEmpty && handler.counts.isEmpty)
                let error = throwing ? "no memory" : EmptyReceiveBuffer().description
                #expect(handler.lostError == .handlerFailed(callback: "received", error: error))
                #expect(told.all.last == "StreamHandler.received: \(error)")
                #expect(loop.statistics.leasedBuffers == 0)
            }
        }
    }

    /// The kernel's buffer is larger than the handler's, so that a pause comes in the middle of one.
    @Test("Q4 P11 a pause and an exchange keep what is left of a buffer", arguments: LoopKind.available)
    func leftovers(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let (handler, next) = (Bowl(size: 10), Notes())
            handler.onCount = { $0.pauseReading() }
            try connection.start(handler)
            let sent = pattern(100)
            try peer.send(sent)
            for round in 1...3 {
                try await until("a part is here", on: loop) { handler.bytes.count >= 10 * round }
                for _ in 0..<3 { try await loop.sleep(for: .microseconds(200)) }
                #expect(handler.counts == Array(repeating: 10, count: round))
                if round < 3 { connection.resumeReading() }
            }
            handler.onCount = { try $0.start(next) }
            connection.resumeReading()
            try await until("the rest is here", on: loop) { next.bytes.count == 60 }
            #expect(handler.bytes + next.bytes == sent)
            handler.onCount = { _ in }
            // Closed in the middle of one: the rest is dropped.
            let last = Bowl(size: 10)
            last.onCount = { $0.abort() }
            try connection.start(last)
            try peer.send(sent)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(last.counts == [10] && last.events == ["lost"])
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    // MARK: C7

    @Test(
        "C7 whoever connects goes on before the first bytes are told, and made comes before them",
        arguments: LoopKind.available)
    func connectingFirst(kind: LoopKind) async throws {
        final class First: StreamHandler {
            let log: Log<String>
            init(_ log: Log<String>) { self.log = log }
            func made(_ connection: Connection) { log.append("made") }
            func received(_ bytes: consuming ReceivedBytes, on connection: Connection) { log.append("received") }
            func lost(_ connection: Connection, error: LoopError?) { log.append("lost") }
        }
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            // Greets before anybody has asked.
            try listener.start {
                try? $0.send(copying: [UInt8(1)].span.bytes)
                $0.closeSoon()
            }
            for _ in 0..<10 {
                let log = Log<String>()
                let connection = try await Connection.connect(to: listener.address, on: loop)
                log.append("connected")
                try connection.start(First(log))
                log.append("started")
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(log.all == ["connected", "made", "started", "received", "lost"])
            }
        }
    }

    @Test("C7 an accepted connection: made before what had arrived already", arguments: LoopKind.available)
    func acceptedFirst(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let peer = try Peer(to: listener.address.port)
            try peer.send([1, 2, 3])
            try peer.finishWriting()
            let handler = Thrower([])
            try listener.start { try? $0.start(handler) }
            try await until("it is lost", on: loop) { handler.events.last == "lost" }
            #expect(handler.events == ["made", "received", "ended", "lost"])
        }
    }
}
