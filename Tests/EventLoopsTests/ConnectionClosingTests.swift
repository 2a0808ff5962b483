// SPDX-License-Identifier: Apache-2.0
//
// ConnectionClosingTests.swift: closing and aborting a connection.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

@Suite(.timeLimit(.minutes(1)))
struct ClosingTests {
    @Test("P1 close sends what is queued first, however long that takes", arguments: LoopKind.available)
    func closeFlushes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let sent = pattern(4 * megabyte)
            try connection.send(copying: sent.span.bytes)
            let close = loop.spawn { await connection.close() }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            #expect(!connection.isClosed)
            async let received = onThread { try peer.receiveToEnd() }
            try await close.value
            #expect(connection.isClosed)
            #expect(difference(try await received, sent) == nil)
        }
    }

    @Test("P1 a polite close goes on when its connection is dropped", arguments: LoopKind.available)
    func closeSoonDropped(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let sent = pattern(2 * megabyte)
            let peer = try {
                let (connection, peer) = try makePair(on: loop)
                try connection.send(copying: sent.span.bytes)
                connection.closeSoon()
                return peer
            }()
            #expect(difference(try await onThread { try peer.receiveToEnd() }, sent) == nil)
            try await until("it is gone", on: loop) { loop.statistics.connections == 0 }
        }
    }

    @Test("P1 close returns once the connection is closed, whoever else closes it", arguments: LoopKind.available)
    func closeTwice(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try connection.send(copying: pattern(2 * megabyte).span.bytes)
            let closes = (0..<3).map { _ in
                loop.spawn {
                    await connection.close()
                    return connection.isClosed
                }
            }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            for _ in 0..<3 { await Task.yield() }
            #expect(try await onThread { try peer.receiveToEnd() }.count == 2 * megabyte)
            for close in closes { #expect(try await close.value) }
            await connection.close()
        }
    }

    @Test("P2 abort drops what is queued, and ends whoever waits", arguments: LoopKind.available)
    func abort(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let reader = loop.spawn { _ = try await connection.read() }
            let writer = loop.spawn { try await connection.write(pattern(4 * megabyte)) }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            connection.abort()
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await reader.value }
            await #expect(throws: LoopError.connectionClosed(operation: "write")) { try await writer.value }
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(connection.unsentByteCount == 0)
            #expect(loop.statistics.leasedBuffers == 0)
            let received = try peer.receiveToEnd()
            #expect(received.count < 4 * megabyte)
            #expect(difference(received, Array(pattern(4 * megabyte).prefix(received.count))) == nil)
        }
    }

    @Test("P2 abort cuts a polite close short", arguments: LoopKind.available)
    func abortWhileClosing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try connection.send(copying: pattern(4 * megabyte).span.bytes)
            let close = loop.spawn { await connection.close() }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            connection.abort()
            try await close.value
            #expect(connection.isClosed)
            #expect(try peer.receiveToEnd().count < 4 * megabyte)
        }
    }

    @Test("P2 abort with reset: the peer is told so", arguments: LoopKind.available)
    func abortReset(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let reader = loop.spawn { _ = try await connection.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            connection.abort(reset: true)
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await reader.value }
            #expect(try await onThread { peer.receiveEnd() } == ECONNRESET)
        }
    }

    @Test("P2 close and abort from another thread", arguments: LoopKind.available)
    func fromElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ways: [@Sendable (Connection) -> Void] = [
                { $0.closeSoon() }, { $0.abort() }, { $0.abort(reset: true) },
            ]
            for way in ways {
                let (connection, peer) = try await makeConnection(on: loop)
                let reader = loop.spawn { _ = try await connection.read() }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                try await onThread { way(connection) }
                await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await reader.value }
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect([0, ECONNRESET].contains(peer.receiveEnd()))
            }
        }
    }

    @Test("P16 a connection that is dropped is closed, on whatever thread", arguments: LoopKind.available)
    func dropped(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let first = try { try makePair(on: loop).1 }()
            #expect(try await onThread { first.receiveEnd() } == 0)
            let second = try {
                let (connection, peer) = try makePair(on: loop)
                let held = Held(connection)
                return (held, peer)
            }()
            try await onThread { second.0.letGo() }
            #expect(try await onThread { second.1.receiveEnd() } == 0)
            try await until("both are gone", on: loop) { loop.statistics.connections == 0 }
        }
    }

    @Test("E8 a loop that closes takes its connections with it", arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        let (connection, writer, peer) = try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let writer = loop.spawn { try await connection.write(pattern(4 * megabyte)) }
            try await until("the write waits", on: loop) { loop.waitingOperations > 0 }
            return (connection, writer, peer)
        }
        await #expect(throws: LoopError.connectionClosed(operation: "write")) { try await writer.value }
        #expect(connection.isClosed)
        await #expect(throws: LoopError.connectionClosed(operation: "read")) { _ = try await connection.read() }
        #expect(throws: LoopError.connectionClosed(operation: "write")) { try connection.send(copying: [1].span.bytes) }
        #expect(try peer.receiveToEnd().count < 4 * megabyte)
        connection.abort()
        await connection.close()
    }

    @Test("F46 X7 connections belong to their loop's thread", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            await Task.detached {
                func wrong(_ operation: String) -> LoopError { .wrongThread(operation: operation) }
                await #expect(throws: wrong("read")) { _ = try await connection.read() }
                await #expect(throws: wrong("write")) { try await connection.write([1]) }
                await #expect(throws: wrong("flush")) { try await connection.flush() }
                #expect(throws: wrong("write")) { try connection.send(copying: [1].span.bytes) }
                #expect(throws: wrong("finishWriting")) { try connection.finishWriting() }
                #expect(throws: wrong("start")) { try connection.start(Notes()) }
                await #expect(throws: wrong("connect")) {
                    _ = try await Connection.connect(to: "127.0.0.1", port: 1, on: loop)
                }
                let (descriptor, other) = try Peer.pair()
                #expect(throws: wrong("adopt")) { _ = try Connection(adopting: descriptor, on: loop) }
                #expect(fcntl(descriptor, F_GETFD) >= 0)
                close(descriptor)
                withExtendedLifetime(other) {}
            }.result.get(orRecord: ())
            // It came to no harm.
            try peer.send([1])
            #expect(try await connection.read(atLeast: 1) == [1])
        }
    }
}
