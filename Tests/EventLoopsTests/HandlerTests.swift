// SPDX-License-Identifier: Apache-2.0
//
// HandlerTests.swift: a connection that is served by a handler.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

@Suite(.timeLimit(.minutes(1)))
struct HandlerTests {
    @Test("Q1 bytes, then the end, then the loss; each once, and nothing after it", arguments: LoopKind.available)
    func order(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let notes = Notes()
            try connection.start(notes)
            for part in 0..<20 {
                try peer.send(pattern(1000, from: 1000 * part))
                await Task.yield()
            }
            try peer.finishWriting()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(difference(notes.bytes, (0..<20).flatMap { pattern(1000, from: 1000 * $0) }) == nil)
            #expect(notes.events.filter { $0 != "received" } == ["ended", "lost"])
            #expect(notes.events.suffix(2) == ["ended", "lost"])
            #expect(peer.receiveEnd() == 0)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    @Test("Q2 a handler may go on writing after the end", arguments: LoopKind.available)
    func halfClosed(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let notes = Notes()
            notes.onEnd = {
                try $0.send(copying: pattern(megabyte).span.bytes); $0.closeSoon()
            }
            try connection.start(notes)
            try peer.finishWriting()
            #expect(difference(try await onThread { try peer.receiveToEnd() }, pattern(megabyte)) == nil)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(notes.events == ["ended", "lost"])
        }
    }

    @Test("Q1 echo by a handler, byte for byte", arguments: LoopKind.available)
    func echo(kind: LoopKind) async throws {
        final class Echo: StreamHandler {
            func received(_ bytes: consuming ReceivedBytes, on connection: Connection) { try? connection.send(bytes) }
        }
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            try listener.start { try? $0.start(Echo()) }
            let port = listener.address.port
            let echoed = try await onThread {
                let peer = try Peer(to: port)
                var echoed: [UInt8] = []
                for part in 0..<40 {
                    try peer.send(pattern(20_000, from: 20_000 * part))
                    echoed += try peer.receive(exactly: 20_000)
                }
                try peer.finishWriting()
                return echoed + (try peer.receiveToEnd())
            }
            #expect(difference(echoed, (0..<40).flatMap { pattern(20_000, from: 20_000 * $0) }) == nil)
            try await until("it is closed", on: loop) { loop.statistics.connections == 0 }
        }
    }

    /// The last thing many a handler does: answer, and close. The answer was queued before, so it is sent.
    @Test("P1 a handler that answers and closes is heard to the end", arguments: LoopKind.available)
    func answerAndClose(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let notes = Notes()
            notes.onReceive = {
                try $0.send(copying: pattern(megabyte).span.bytes); $0.closeSoon()
            }
            try connection.start(notes)
            try peer.send([1])
            let answer = try await onThread { try peer.receiveToEnd() }
            #expect(difference(answer, pattern(megabyte)) == nil)
            #expect(notes.events == ["received", "lost"])
        }
    }

    @Test("P2 a handler that aborts hears nothing more", arguments: LoopKind.available)
    func abortInside(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let notes = Notes()
            notes.onReceive = { $0.abort() }
            try connection.start(notes)
            try peer.send(pattern(100_000))
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(notes.events == ["received", "lost"])
            #expect(notes.lostError == nil)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    @Test("P13 a reset is the loss's error, told once", arguments: LoopKind.available)
    func reset(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let notes = Notes()
            try connection.start(notes)
            try peer.send([1])
            try await until("the bytes are here", on: loop) { notes.events == ["received"] }
            peer.reset()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(notes.events == ["received", "lost"])
            #expect(notes.lostError.errno == ECONNRESET)
            connection.abort()
            connection.closeSoon()
            for _ in 0..<3 { await Task.yield() }
            #expect(notes.events == ["received", "lost"])
        }
    }

    @Test("E8 handlers are told that their loop closes, and let go", arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        weak var weakHandler: Notes?
        weak var weakConnection: Connection?
        let (events, end) = try await onThread {
            let loop = try kind.makeLoop()
            let (connection, peer) = try makePair(on: loop)
            let notes = Notes()
            (weakHandler, weakConnection) = (notes, connection)
            try connection.start(notes)
            while loop.waitingOperations == 0 { try loop.runOnce(.noWait) }
            try loop.close()
            return (notes.events, peer.receiveEnd())
        }
        #expect(events == ["lost"])
        #expect(end == 0)
        #expect(weakHandler == nil)
        #expect(weakConnection == nil)
    }

    @Test("Q1 a started connection lives without its maker, and goes when it is lost", arguments: LoopKind.available)
    func keepsItself(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            weak var weakConnection: Connection?
            weak var weakHandler: Notes?
            let peer = try {
                let (connection, peer) = try makePair(on: loop)
                let notes = Notes()
                (weakConnection, weakHandler) = (connection, notes)
                try connection.start(notes)
                return peer
            }()
            try peer.send([1])
            try await until("the bytes are here", on: loop) { weakHandler?.events == ["received"] }
            #expect(weakConnection != nil)
            peer.close()
            try await until("it is gone", on: loop) { loop.statistics.connections == 0 }
            #expect(weakConnection == nil)
            #expect(weakHandler == nil)
        }
    }

    @Test("K8 a handler or a reader, not both", arguments: LoopKind.available)
    func noReadBeside(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let notes = Notes()
            try connection.start(notes)
            await #expect(throws: LoopError.busy(operation: "read")) { _ = try await connection.read() }
            try peer.send([1, 2])
            try await until("the bytes are here", on: loop) { notes.bytes == [1, 2] }
        }
    }
}
