// SPDX-License-Identifier: Apache-2.0
//
// WritingTests.swift: writing to a connection: order, back-pressure, half-close, broken peers.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

@Suite(.timeLimit(.minutes(1)))
struct WritingTests {
    /// More than the kernel keeps for the peer, who takes it in small bites.
    @Test(
        "P8 8 MiB to a slow reader: byte for byte, and each write waits while too much is queued",
        arguments: LoopKind.available)
    func bigSend(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let sent = pattern(8 * megabyte)
            async let received = onThread { try peer.receiveToEnd(chunk: 10_000) }
            var suspensions = 0
            for start in stride(from: 0, to: sent.count, by: 50_000) {
                let passes = loop.statistics.passes
                try await connection.write(Array(sent[start..<min(start + 50_000, sent.count)]))
                if loop.statistics.passes != passes { suspensions += 1 }
                #expect(connection.unsentByteCount <= connection.writeHighWaterMark)
            }
            await connection.close()
            let all = try await received
            #expect(difference(all, sent) == nil)
            #expect(suspensions > 10)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    /// The writer goes to sleep above the mark, and on again once a quarter of it is left.
    @Test("P8 a write above the mark waits for the peer, one below it does not", arguments: LoopKind.available)
    func highWaterMark(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            connection.writeHighWaterMark = 40_000
            let log = Log<Int>()
            let parts = (0..<4).map { pattern(megabyte, from: 50_000 * $0) }
            let writer = loop.spawn {
                for (index, part) in parts.enumerated() {
                    try await connection.write(part)
                    log.append(index)
                    #expect(connection.unsentByteCount <= connection.writeHighWaterMark / 4)
                }
            }
            try await until("the kernel takes no more", on: loop) {
                loop.waitingOperations > 0 && connection.unsentByteCount > connection.writeHighWaterMark
            }
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(200)) }
            #expect(log.all.isEmpty)
            async let received = onThread { try peer.receive(exactly: 4 * megabyte) }
            try await writer.value
            try await connection.flush()
            #expect(connection.unsentByteCount == 0)
            #expect(difference(try await received, parts.reduce([], +)) == nil)
        }
    }

    @Test(
        "P4 copies and leases of any size leave in the order they were written; nothing is not written",
        arguments: LoopKind.available)
    func order(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (source, sourcePeer) = try makePair(on: loop)
            let (connection, peer) = try await makeConnection(on: loop)
            async let received = onThread { try peer.receiveToEnd() }
            var expected: [UInt8] = []
            for round in 0..<300 {
                let copy = pattern(round * 7 % 1000 * (round.isMultiple(of: 50) ? 100 : 1), from: round)
                try await connection.write(copy)
                expected += copy
                if round.isMultiple(of: 3) {
                    try sourcePeer.send([UInt8(truncatingIfNeeded: round), 0xff])
                    let lease = try await source.readLease()
                    expected += lease.spanned
                    try await connection.write(lease.take())
                }
                try await connection.write([])
            }
            try connection.finishWriting()
            let all = try await received
            #expect(difference(all, expected) == nil)
        }
    }

    @Test("P9 what is queued is counted, and flush waits for it", arguments: LoopKind.available)
    func flush(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try await connection.flush()
            try connection.send(copying: pattern(2 * megabyte).span.bytes)
            #expect(connection.unsentByteCount > 0)
            let flush = loop.spawn { try await connection.flush() }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            #expect(connection.unsentByteCount > 0)
            async let received = onThread { try peer.receive(exactly: 2 * megabyte) }
            try await flush.value
            #expect(connection.unsentByteCount == 0)
            #expect(difference(try await received, pattern(2 * megabyte)) == nil)
        }
    }

    @Test("P8 bytes of a write that is cancelled while it waits arrive nevertheless", arguments: LoopKind.available)
    func cancelledWrite(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let sent = pattern(2 * megabyte)
            let write = loop.spawn { try await connection.write(sent) }
            try await until("the write waits", on: loop) { loop.waitingOperations > 0 }
            write.cancel()
            await #expect(throws: LoopError.cancelled(operation: "write")) { try await write.value }
            async let received = onThread { try peer.receiveToEnd() }
            try await connection.write([1])
            await connection.close()
            #expect(difference(try await received, sent + [1]) == nil)
        }
    }

    @Test("P6 finishWriting: all that was written, then the end; reading goes on", arguments: LoopKind.available)
    func finishWriting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let sent = pattern(2 * megabyte)
            try connection.send(copying: sent.span.bytes)
            try connection.finishWriting()
            try connection.finishWriting()
            await #expect(throws: LoopError.finishedWriting) { try await connection.write([1]) }
            #expect(throws: LoopError.finishedWriting) { try connection.send(copying: [1].span.bytes) }
            #expect(difference(try await onThread { try peer.receiveToEnd() }, sent) == nil)
            try peer.send([1, 2, 3])
            #expect(try await connection.read(atLeast: 3) == [1, 2, 3])
            peer.close()
            #expect(try await connection.read() == nil)
            await connection.close()
        }
    }

    @Test("P4 write while closing and after it is refused", arguments: LoopKind.available)
    func writeAfterClose(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try connection.send(copying: pattern(2 * megabyte).span.bytes)
            connection.closeSoon()
            let closed = LoopError.connectionClosed(operation: "write")
            await #expect(throws: closed) { try await connection.write([1]) }
            #expect(throws: LoopError.connectionClosed(operation: "finishWriting")) { try connection.finishWriting() }
            let received = try await onThread { try peer.receiveToEnd() }
            #expect(difference(received, pattern(2 * megabyte)) == nil)
            await connection.close()
            await #expect(throws: closed) { try await connection.write([1]) }
        }
    }
}
