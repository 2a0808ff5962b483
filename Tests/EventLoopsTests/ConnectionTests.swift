// SPDX-License-Identifier: Apache-2.0
//
// ConnectionTests.swift: one connection: reading, writing, cancelling, ending and closing, by tasks and by handlers.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

// MARK: - Reading

@Suite(.timeLimit(.minutes(1)))
struct ReadingTests {
    @Test("P6 nil once the peer has finished, and again on each read after that", arguments: LoopKind.available)
    func end(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try peer.send([1, 2, 3])
            try peer.finishWriting()
            #expect(try await connection.readToEnd() == [1, 2, 3])
            for _ in 0..<3 { #expect(try await connection.read() == nil) }
            await connection.close()
        }
    }

    @Test("P6 an end that comes while a read waits", arguments: LoopKind.available)
    func endWhileWaiting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let read = loop.spawn { try await connection.read() == nil }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            peer.close()
            #expect(try await read.value)
        }
    }

    @Test("P12 8 MiB arrive byte for byte", arguments: LoopKind.available)
    func bigReceive(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let sent = pattern(8 * megabyte)
            async let sender: Void = onThread {
                try peer.send(sent)
                try peer.finishWriting()
            }
            let received = try await connection.readToEnd()
            try await sender
            #expect(difference(received, sent) == nil)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    /// Nobody reads: the kernel's buffers fill and the peer is made to wait, rather than the loop keep it all.
    @Test("P11 a peer whose bytes nobody reads has to wait", arguments: LoopKind.available)
    func backpressure(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try peer.send([0])
            #expect(try await connection.read(atLeast: 1) == [0])
            _ = fcntl(peer.descriptor, F_SETFL, O_NONBLOCK)
            let bytes = pattern(64 * 1024)
            // Sent until nothing is taken any more, although the loop runs.
            var (total, refusals) = (0, 0)
            while refusals < 20 && total < 64 * megabyte {
                let sent = bytes.withUnsafeBytes {
                    send(peer.descriptor, $0.baseAddress! + total % bytes.count, bytes.count - total % bytes.count, 0)
                }
                if sent > 0 { total += sent } else { refusals += 1 }
                try await loop.sleep(for: .microseconds(200))
            }
            #expect(total < 64 * megabyte)
            try peer.finishWriting()
            let received = try await connection.readToEnd()
            #expect(difference(received, pattern(bytes.count).repeated(upTo: total)) == nil)
        }
    }

    @Test("K8 one read at a time; the first is not disturbed", arguments: LoopKind.available)
    func busy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let first = loop.spawn { try await connection.read(atLeast: 3) }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            await #expect(throws: LoopError.busy(operation: "read")) { _ = try await connection.read() }
            #expect(throws: LoopError.busy(operation: "start")) { try connection.start(Notes()) }
            try peer.send([1, 2, 3])
            #expect(try await first.value == [1, 2, 3])
        }
    }

    /// A task that was cancelled before it asked is refused for being second. The first has nothing to do with that.
    @Test("K8 a second read that is cancelled does not cancel the first", arguments: LoopKind.available)
    func cancelledSecond(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let first = loop.spawn { try await connection.read(atLeast: 1) }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            let second = loop.spawn { _ = try await connection.read() }
            second.cancel()
            #expect(await thrown { try await second.value } != nil)
            for _ in 0..<3 { try await loop.sleep(for: .microseconds(100)) }
            try peer.send([1])
            #expect(try await first.value == [1])
        }
    }

    @Test(
        "K7 a read that is cancelled takes no byte with it, and the next one works at once",
        arguments: LoopKind.available)
    func cancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            for round in 0..<50 {
                let read = loop.spawn { _ = try await connection.read() }
                // Some have begun, some have not.
                if round.isMultiple(of: 2) { for _ in 0..<3 { await Task.yield() } }
                read.cancel()
                await #expect(throws: LoopError.cancelled(operation: "read")) { try await read.value }
                try peer.send([UInt8(round)])
                #expect(try await connection.read(atLeast: 1) == [UInt8(round)])
            }
        }
    }

    /// Bytes and a cancel in the same pass, in both orders. Either may win; the bytes are there in either case, in
    /// order, and exactly once.
    @Test("N7 bytes and a cancel at the same time", arguments: LoopKind.available)
    func cancelRace(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let rounds = 1000
            var received: [UInt8] = []
            var cancelled = 0
            for round in 0..<rounds {
                let read = loop.spawn { try await connection.read()?.copy() ?? [] }
                if round % 3 > 0 { await Task.yield() }
                if round.isMultiple(of: 2) { read.cancel() }
                try peer.send(pattern(3, from: 3 * round))
                if !round.isMultiple(of: 2) { read.cancel() }
                do {
                    received += try await read.value
                } catch LoopError.cancelled(operation: "read") {
                    cancelled += 1
                }
            }
            #expect(cancelled > 0)
            received += try await connection.read(atLeast: 3 * rounds - received.count)
            #expect(difference(received, pattern(3 * rounds)) == nil)
            try await until("no lease is kept", on: loop) { loop.statistics.leasedBuffers == 0 }
        }
    }

    /// The same with cancels from another thread, at any moment.
    @Test("N7 bytes and cancels from other threads", arguments: LoopKind.available)
    func cancelElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let sent = pattern(20_000)
            async let sender: Void = onThread {
                var offset = 0
                while offset < sent.count {
                    let count = min(1 + offset % 37, sent.count - offset)
                    try peer.send(Array(sent[offset..<offset + count]))
                    offset += count
                }
                try peer.finishWriting()
            }
            var received: [UInt8] = []
            while true {
                let read = loop.spawn { try await connection.read()?.copy() }
                async let cancel: Void = onThread { read.cancel() }
                do {
                    guard let bytes = try await read.value else { break }
                    received += bytes
                } catch LoopError.cancelled(operation: "read") {
                }
                try await cancel
            }
            try await sender
            #expect(difference(received, sent) == nil)
        }
    }

    @Test("N12 a lease is seen without a copy, and goes back on any thread", arguments: LoopKind.available)
    func lease(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            for _ in 0..<100 {
                try peer.send([10, 20, 30])
                let box = try await connection.readLease()
                #expect(loop.statistics.leasedBuffers == 1)
                #expect(box.count == 3)
                #expect(box.spanned == [10, 20, 30])
                try await onThread {
                    #expect(box.spanned == [10, 20, 30])
                    box.giveBack()
                }
                try await until("the lease is back", on: loop) { loop.statistics.leasedBuffers == 0 }
            }
        }
    }

    @Test("N12 a lease outlives its connection and its loop", arguments: LoopKind.available)
    func leaseOutlives(kind: LoopKind) async throws {
        let boxes = try await onLoop(kind) { loop in
            var boxes: [Lease] = []
            for index in 0..<5 {
                let (connection, peer) = try makePair(on: loop)
                try peer.send([UInt8](repeating: UInt8(index), count: 32))
                boxes.append(try await connection.readLease())
                await connection.close()
            }
            return boxes
        }
        for (index, box) in boxes.enumerated() {
            #expect(box.spanned == [UInt8](repeating: UInt8(index), count: 32))
            // Some on threads of their own, some here.
            if index.isMultiple(of: 2) { try await onThread { box.giveBack() } }
        }
        for (index, box) in boxes.enumerated() where !index.isMultiple(of: 2) {
            #expect(box.spanned == [UInt8](repeating: UInt8(index), count: 32))
            box.giveBack()
        }
    }

    /// Whoever keeps leases for long must not keep the others waiting.
    @Test("N12 a handler that keeps every lease does not starve other connections", arguments: LoopKind.available)
    func keptLeases(kind: LoopKind) async throws {
        var options = LoopOptions.forTests
        if options.bufferCount == 0 { options.bufferCount = 8 }
        try await onLoop(kind, options: options) { loop in
            let (greedy, greedyPeer) = try await makeConnection(on: loop)
            var kept: [Lease] = []
            for index in 0..<40 {
                try greedyPeer.send([UInt8(index)])
                kept.append(try await greedy.readLease())
            }
            let (other, peer) = try makePair(on: loop)
            try peer.send([1, 2, 3])
            #expect(try await other.read(atLeast: 3) == [1, 2, 3])
            #expect(kept.flatMap(\.spanned) == (0..<40).map { UInt8($0) })
            #expect(loop.statistics.copiedReceives > 0)
            kept.removeAll()
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    @Test("P1 a read that waits ends with the connection, a later one does not begin", arguments: LoopKind.available)
    func readAfterClose(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let read = loop.spawn { _ = try await connection.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            await connection.close()
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await read.value }
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { _ = try await connection.read() }
            #expect(connection.isClosed)
            #expect(peer.receiveEnd() == 0)
        }
    }

    @Test("E8 a read that waits ends with the loop", arguments: LoopKind.available)
    func readAtLoopClose(kind: LoopKind) async throws {
        let (read, peer) = try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let read = loop.spawn { _ = try await connection.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            return (read, peer)
        }
        await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await read.value }
        #expect(peer.receiveEnd() == 0)
    }
}

// MARK: - Writing

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

// MARK: - Closing

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

    @Test("X7 connections belong to their loop's thread", arguments: LoopKind.available)
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

// MARK: - Connecting

@Suite(.timeLimit(.minutes(1)))
struct ConnectingTests {
    @Test("K4 connect: both ends know each other, and bytes go both ways", arguments: LoopKind.available)
    func connect(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            async let server = {
                let connection = try await listener.accept(); return connection
            }()
            let client = try await Connection.connect(to: "127.0.0.1", port: listener.address.port, on: loop)
            let accepted = try await server
            #expect(client.remoteAddress == listener.address)
            #expect(accepted.remoteAddress == client.localAddress)
            #expect(accepted.localAddress == client.remoteAddress)
            var noDelay: Int32 = 0
            var size = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(client.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &noDelay, &size)
            #expect(noDelay != 0)
            let echo = loop.spawn { try await accepted.echo() }
            for round in 0..<50 {
                try await client.write(pattern(100 + round))
                #expect(try await client.read(atLeast: 100 + round) == pattern(100 + round))
            }
            try client.finishWriting()
            #expect(try await client.read() == nil)
            try await echo.value
            await client.close()
        }
    }

    @Test("K4 a connection that is refused: the error names the address", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let port = try Listener(on: loop, port: 0).address.port
            let refused = LoopError.io(IOError(errno: ECONNREFUSED, operation: "connect to 127.0.0.1:\(port)"))
            for _ in 0..<5 {
                await #expect(throws: refused) {
                    _ = try await Connection.connect(to: "127.0.0.1", port: port, on: loop)
                }
            }
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("K4 only literal addresses", arguments: LoopKind.available)
    func invalidAddress(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for text in ["localhost", "", "127.0.0", "::g", "127.0.0.1 ", "1.2.3.4.5"] {
                await #expect(throws: LoopError.invalidAddress(text)) {
                    _ = try await Connection.connect(to: text, port: 1, on: loop)
                }
            }
        }
    }

    /// The listener's queue is full, so the kernel leaves some of the requests without an answer.
    @Test(
        "C8 a connect that is cancelled while nobody answers ends, and its descriptor with it",
        arguments: LoopKind.available)
    func cancelConnect(kind: LoopKind) async throws {
        let (descriptor, port) = try makeFullListener()
        defer { close(descriptor) }
        try await onLoop(kind) { loop in
            let attempts = (0..<4).map { _ in
                loop.spawn { _ = try await Connection.connect(to: "127.0.0.1", port: port, on: loop) }
            }
            try await until("some are answered, some wait", on: loop) { (1...3).contains(loop.waitingOperations) }
            for attempt in attempts { attempt.cancel() }
            var cancelled = 0
            for attempt in attempts {
                let error = await thrown { try await attempt.value }
                if error == .cancelled(operation: "connect") { cancelled += 1 } else { #expect(error == nil) }
            }
            #expect(cancelled > 0)
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("E8 a connect that waits ends with the loop", arguments: LoopKind.available)
    func connectAtLoopClose(kind: LoopKind) async throws {
        let (descriptor, port) = try makeFullListener()
        defer { close(descriptor) }
        let attempts = try await onLoop(kind) { loop in
            let attempts = (0..<4).map { _ in
                loop.spawn { _ = try await Connection.connect(to: "127.0.0.1", port: port, on: loop) }
            }
            try await until("some are answered, some wait", on: loop) { (1...3).contains(loop.waitingOperations) }
            return attempts
        }
        var ended = 0
        for attempt in attempts {
            let error = await thrown { try await attempt.value }
            if error == .connectionClosed(operation: "connect") { ended += 1 } else { #expect(error == nil) }
        }
        #expect(ended > 0)
    }

    @Test("C10 a socket can be taken over; what is none stays its owner's", arguments: LoopKind.available)
    func adopt(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (descriptor, peer) = try Peer.pair()
            let connection = try Connection(adopting: descriptor, on: loop)
            #expect(connection.descriptor == descriptor)
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
            let twice = #expect(throws: LoopError.self) { _ = try Connection(adopting: descriptor, on: loop) }
            #expect(twice == .busy(operation: "adopt"))
            try await connection.write([1])
            try await connection.flush()
            #expect(try peer.receive() == [1])

            let file = try check(open("/dev/null", O_RDONLY | O_CLOEXEC), "open")
            defer { close(file) }
            let datagram = try check(socket(AF_INET, datagramType, 0), "socket")
            defer { close(datagram) }
            #expect(await thrown { _ = try Connection(adopting: file, on: loop) }.errno == ENOTSOCK)
            #expect(await thrown { _ = try Connection(adopting: datagram, on: loop) }.errno == EPROTOTYPE)
            #expect(await thrown { _ = try Connection(adopting: -1, on: loop) }.errno == EBADF)
            #expect(fcntl(file, F_GETFD) >= 0)
            #expect(fcntl(datagram, F_GETFD) >= 0)
            #expect(loop.statistics.connections == 1)
        }
    }
}

// MARK: - Handlers

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

// MARK: - Helpers

/// A handler that notes what it is told. On its loop's thread.
private final class Notes: StreamHandler {
    var events: [String] = []
    var bytes: [UInt8] = []
    var lostError: LoopError?
    var onReceive: (Connection) throws -> Void = { _ in }
    var onEnd: (Connection) throws -> Void = { $0.closeSoon() }

    func received(_ received: consuming ReceivedBytes, on connection: Connection) {
        events.append("received")
        bytes += received.copy()
        #expect(throws: Never.self) { try onReceive(connection) }
    }

    func ended(_ connection: Connection) {
        events.append("ended")
        #expect(throws: Never.self) { try onEnd(connection) }
    }

    func lost(_ connection: Connection, error: LoopError?) {
        events.append("lost")
        lostError = error
    }
}

/// A lease that can be handed from thread to thread, which a value that cannot be copied could not.
private final class Lease: @unchecked Sendable {
    private var bytes: ReceivedBytes?
    init(_ bytes: consuming ReceivedBytes) { self.bytes = consume bytes }

    var count: Int { bytes.borrowed { $0.count } }

    /// The bytes as their span shows them.
    var spanned: [UInt8] {
        bytes.borrowed { bytes in
            let span = bytes.bytes
            return (0..<span.byteCount).map { span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        }
    }

    func take() -> ReceivedBytes { bytes.take()! }
    func giveBack() { bytes = nil }
}

extension ReceivedBytes? {
    fileprivate borrowing func borrowed<Result>(_ body: (borrowing ReceivedBytes) -> Result) -> Result {
        switch self {
        case .some(let bytes): body(bytes)
        case .none: preconditionFailure("The lease is gone.")
        }
    }
}

extension Connection {
    fileprivate func readLease() async throws -> Lease {
        guard let bytes = try await read() else { throw Impatience(description: "bytes before the end") }
        return Lease(bytes)
    }
}

/// The last reference to something.
private final class Held: @unchecked Sendable {
    private var value: Connection?
    init(_ value: Connection) { self.value = value }
    func letGo() { value = nil }
}

extension [UInt8] {
    fileprivate func repeated(upTo count: Int) -> [UInt8] {
        var all: [UInt8] = []
        all.reserveCapacity(count)
        while all.count < count { all += prefix(count - all.count) }
        return all
    }
}

extension Result {
    /// The value; an error becomes an issue.
    fileprivate func get(orRecord fallback: Success) -> Success {
        switch self {
        case .success(let value): return value
        case .failure(let error):
            Issue.record(error)
            return fallback
        }
    }
}
