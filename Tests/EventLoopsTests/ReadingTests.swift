// SPDX-License-Identifier: Apache-2.0
//
// ReadingTests.swift: reading from a connection: bytes, ends, cancels, leases.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

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
