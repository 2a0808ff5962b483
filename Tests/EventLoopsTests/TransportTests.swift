// SPDX-License-Identifier: Apache-2.0
//
// TransportTests.swift: what a connection does for its handler: the loss, pauses, exchanges, and what it says of itself.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

/// Notes what it is told in a list that handlers may share, and does what the test says.
private final class Told: StreamHandler {
    private(set) var events: [String] = []
    var bytes: [UInt8] = []
    var lostError: LoopError?
    var onMade: (Connection) throws -> Void = { _ in }
    var onReceive: (Connection) throws -> Void = { _ in }
    var onEnd: (Connection) throws -> Void = { $0.closeSoon() }
    var onLost: (Connection) throws -> Void = { _ in }

    func made(_ connection: Connection) throws {
        events.append("made")
        try onMade(connection)
    }

    func received(_ received: consuming ReceivedBytes, on connection: Connection) throws {
        events.append("received")
        bytes += received.copy()
        try onReceive(connection)
    }

    func ended(_ connection: Connection) throws {
        events.append("ended")
        try onEnd(connection)
    }

    func lost(_ connection: Connection, error: LoopError?) throws {
        events.append("lost")
        lostError = error
        try onLost(connection)
    }
}

/// Passes of the loop in which whatever has happened by now would be told.
private func somePasses(_ loop: any Loop) async throws {
    for _ in 0..<5 { try await loop.sleep(for: .microseconds(200)) }
}

@Suite("Transports", .timeLimit(.minutes(1)))
struct TransportTests {
    // MARK: P3

    @Test(
        "P3 the loss is told once, in a later pass, and the descriptor closes once it is told",
        arguments: LoopKind.available)
    func lossIsScheduled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ways: [@Sendable (Connection) -> Void] = [
                { $0.closeSoon() }, { $0.abort() },
                {
                    $0.closeSoon()
                    $0.abort()
                    $0.closeSoon()
                },
            ]
            for way in ways {
                let (connection, peer) = try makePair(on: loop)
                let told = Told()
                var wasOpen = false
                told.onLost = { wasOpen = !$0.isClosed && fcntl($0.descriptor, F_GETFD) >= 0 }
                try connection.start(told)
                try await somePasses(loop)
                way(connection)
                #expect(told.events == ["made"])
                #expect(connection.isClosing && !connection.isClosed)
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(wasOpen)
                try await somePasses(loop)
                #expect(told.events == ["made", "lost"])
                #expect(told.lostError == nil)
                #expect(peer.receiveEnd() == 0)
            }
        }
    }

    @Test("P3 closed within a callback: the loss comes after it has returned", arguments: LoopKind.available)
    func lossDoesNotNest(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for abort in [false, true] {
                let (connection, peer) = try makePair(on: loop)
                let told = Told()
                var nested = false
                told.onReceive = { [unowned told] in
                    abort ? $0.abort() : $0.closeSoon()
                    nested = told.events.contains("lost")
                }
                try connection.start(told)
                try peer.send([1])
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(!nested)
                #expect(told.events == ["made", "received", "lost"])
            }
        }
    }

    @Test("P3 the loss waits for the last flush", arguments: LoopKind.available)
    func lossAfterFlush(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let told = Told()
            try connection.start(told)
            try connection.send(copying: pattern(2 * megabyte).span.bytes)
            connection.closeSoon()
            try await somePasses(loop)
            #expect(told.events == ["made"])
            let received = try await onThread { try peer.receiveToEnd() }
            #expect(difference(received, pattern(2 * megabyte)) == nil)
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(told.events == ["made", "lost"])
        }
    }

    /// Sends fail, and nothing is read that would tell: without the loss the handler would wait for ever.
    @Test(
        "P3 a peer that goes away is a loss, also where reading is paused or has ended", arguments: LoopKind.available)
    func lostByWriting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for paused in [true, false] {
                let (connection, peer) = try makePair(on: loop)
                let told = Told()
                told.onEnd = { _ in }
                try connection.start(told)
                if paused { connection.pauseReading() }
                try connection.send(copying: pattern(megabyte).span.bytes)
                if !paused {
                    try peer.finishWriting()
                    try await until("the end is told", on: loop) { told.events == ["made", "ended"] }
                }
                try await somePasses(loop)
                peer.close()
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(told.events == (paused ? ["made", "lost"] : ["made", "ended", "lost"]))
                #expect([EPIPE, ECONNRESET].contains(told.lostError.errno))
            }
        }
    }

    @Test("P3 a flush that breaks is the loss's error", arguments: LoopKind.available)
    func brokenFlush(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let told = Told()
            try connection.start(told)
            try connection.send(copying: pattern(4 * megabyte).span.bytes)
            connection.closeSoon()
            peer.reset()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect([ECONNRESET, EPIPE].contains(told.lostError.errno))
        }
    }

    @Test(
        "P3 handlers of a loop that closes are told, the paused and those that flush as well",
        arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            // On this thread alone, which runs the loop.
            nonisolated(unsafe) let handlers = (0..<3).map { _ in Told() }
            let peers = try loop.run {
                try (0..<3).map { index in
                    let (connection, peer) = try makePair(on: loop)
                    try connection.start(handlers[index])
                    if index == 1 { connection.pauseReading() }
                    if index == 2 {
                        try connection.send(copying: pattern(4 * megabyte).span.bytes)
                        connection.closeSoon()
                    }
                    return peer
                }
            }
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            #expect(handlers.allSatisfy { $0.events == ["made"] })
            try loop.close()
            #expect(handlers.allSatisfy { $0.events == ["made", "lost"] })
            for peer in peers { peer.close() }
        }
    }

    // MARK: P5

    @Test(
        "P5 many parts, empty ones among them, leave in order, all with this pass",
        arguments: LoopKind.available)
    func parts(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let sizes = [0, 1, 0, 20_000, 3, 0, 40_000, 0]
            let parts = sizes.enumerated().map { pattern($1, from: 1000 * $0) }
            let passes = loop.statistics.passes
            try await connection.write(copying: parts)
            try await connection.write(copying: [])
            try await connection.write(copying: [[], []])
            #expect(loop.statistics.passes == passes)
            #expect(connection.unsentByteCount == 60_004)
            let all = try await onThread { try peer.receive(exactly: 60_004) }
            #expect(difference(all, parts.flatMap { $0 }) == nil)
            try await until("all is sent", on: loop) { connection.unsentByteCount == 0 }
            connection.closeSoon()
            #expect(throws: LoopError.connectionClosed(operation: "write")) { try connection.send(copying: [[1]]) }
        }
    }

    @Test("P5 more parts than one system call takes", arguments: LoopKind.available)
    func manyParts(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let parts = (0..<1500).map { pattern($0 % 40 * 50, from: $0) }
            async let received = onThread { try peer.receiveToEnd() }
            try await connection.write(copying: parts)
            await connection.close()
            let all = try await received
            #expect(difference(all, parts.flatMap { $0 }) == nil)
        }
    }

    @Test("P5 parts that are too many together make the writer wait", arguments: LoopKind.available)
    func partsUnderFlowControl(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let part = pattern(megabyte / 2)
            let log = Log<Int>()
            let writer = loop.spawn {
                try await connection.write(copying: [part, part, part, part])
                log.append(connection.unsentByteCount)
            }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            try await somePasses(loop)
            #expect(log.all.isEmpty)
            let received = try await onThread { try peer.receive(exactly: 2 * megabyte) }
            try await writer.value
            #expect(difference(received, part + part + part + part) == nil)
            #expect(log.all.allSatisfy { $0 <= connection.writeLimits.low })
        }
    }

    // MARK: P10, P11

    @Test("P10 pauses and resumes, each as often as one likes", arguments: LoopKind.available)
    func pauses(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            connection.pauseReading()  // no handler: nothing to pause
            connection.resumeReading()
            let told = Told()
            try connection.start(told)
            #expect(connection.isReading)
            for round in 0..<3 {
                connection.pauseReading()
                connection.pauseReading()
                #expect(!connection.isReading)
                try peer.send([UInt8(round)])
                try await somePasses(loop)
                #expect(told.bytes.count == round)
                connection.resumeReading()
                connection.resumeReading()
                #expect(connection.isReading)
                // Not within the call.
                #expect(told.bytes.count == round)
                try await until("the byte is here", on: loop) { told.bytes.count == round + 1 }
            }
            #expect(told.bytes == [0, 1, 2])
            // Within one pass, with the byte on its way.
            connection.pauseReading()
            connection.resumeReading()
            try peer.send([3])
            try await until("the byte is here", on: loop) { told.bytes == [0, 1, 2, 3] }
        }
    }

    @Test("P10 the end is told once, however often reading is resumed", arguments: LoopKind.available)
    func endOnce(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let told = Told()
            told.onEnd = { _ in }
            try connection.start(told)
            try peer.finishWriting()
            try await until("the end is told", on: loop) { told.events.count == 2 }
            for _ in 0..<5 {
                connection.pauseReading()
                connection.resumeReading()
                try await loop.sleep(for: .zero)
            }
            #expect(told.events == ["made", "ended"])
            // A loss reaches the paused, too.
            connection.pauseReading()
            connection.abort()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(told.events == ["made", "ended", "lost"])
        }
    }

    @Test("P10 reading can be paused from the first byte on, in made", arguments: LoopKind.available)
    func pausedInMade(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try peer.send([1, 2])
            let told = Told()
            told.onMade = { $0.pauseReading() }
            try connection.start(told)
            try await somePasses(loop)
            #expect(told.events == ["made"])
            connection.resumeReading()
            try await until("the bytes are here", on: loop) { told.bytes == [1, 2] }
        }
    }

    @Test(
        "P10 nothing is paused or resumed while it closes; the loss is told all the same", arguments: LoopKind.available
    )
    func pauseWhileClosing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for pauseFirst in [true, false] {
                let (connection, peer) = try makePair(on: loop)
                let told = Told()
                try connection.start(told)
                if pauseFirst { connection.pauseReading() }
                try connection.send(copying: pattern(2 * megabyte).span.bytes)
                try await somePasses(loop)
                try peer.send([1])
                connection.closeSoon()
                connection.resumeReading()
                #expect(!connection.isReading)
                connection.pauseReading()
                #expect(try await onThread { try peer.receive(exactly: 2 * megabyte) }.count == 2 * megabyte)
                try await until("it is closed", on: loop) { connection.isClosed }
                connection.resumeReading()
                connection.pauseReading()
                try await somePasses(loop)
                #expect(told.events == ["made", "lost"])
            }
        }
    }

    /// The proactor's receive is in flight when the pause comes. What it brings, the end too, stays where it is.
    @Test(
        "P11 what arrives during a pause, the end included, is told in order on resume", arguments: LoopKind.available)
    func heldBack(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for tcp in [true, false] {
                let (connection, peer) = tcp ? try await makeConnection(on: loop) : try makePair(on: loop)
                let told = Told()
                try connection.start(told)
                try await somePasses(loop)
                connection.pauseReading()
                for part in 0..<10 {
                    try peer.send(pattern(1000, from: 1000 * part))
                    try await loop.sleep(for: .microseconds(100))
                }
                try peer.finishWriting()
                try await somePasses(loop)
                #expect(told.events == ["made"])
                connection.resumeReading()
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(difference(told.bytes, (0..<10).flatMap { pattern(1000, from: 1000 * $0) }) == nil)
                #expect(told.events.suffix(2) == ["ended", "lost"])
                #expect(told.events.filter { $0 == "ended" || $0 == "lost" }.count == 2)
            }
        }
    }

    @Test("P11 a pause in the middle of a batch keeps the rest of it", arguments: LoopKind.available)
    func pauseInBatch(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let told = Told()
            told.onReceive = { $0.pauseReading() }
            try connection.start(told)
            let sent = pattern(getenv("LOOP_TINY") == nil ? 300_000 : 10_000)
            async let sending: Void = onThread {
                try peer.send(sent)
                try peer.finishWriting()
            }
            var deliveries = 0
            while !connection.isClosed {
                try await until("more is here", on: loop) {
                    told.events.filter { $0 == "received" }.count > deliveries || connection.isClosed
                }
                try await loop.sleep(for: .microseconds(50))
                let count = told.events.filter { $0 == "received" }.count
                // One for each resume, not one more.
                #expect(count <= deliveries + 1)
                deliveries = count
                connection.resumeReading()
            }
            try await sending
            #expect(difference(told.bytes, sent) == nil)
            #expect(told.events.suffix(2) == ["ended", "lost"])
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    @Test("P11 a peer of a paused handler has to wait", arguments: LoopKind.available)
    func pausedPushesBack(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let told = Told()
            try connection.start(told)
            connection.pauseReading()
            let sent = pattern(4 * megabyte)
            let done = Log<Bool>()
            async let sending: Void = onThread {
                try peer.send(sent)
                done.append(true)
                try peer.finishWriting()
            }
            for _ in 0..<20 { try await loop.sleep(for: .milliseconds(1)) }
            #expect(done.all.isEmpty)
            #expect(told.events == ["made"])
            connection.resumeReading()
            try await sending
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(difference(told.bytes, sent) == nil)
        }
    }

    // MARK: P14

    @Test("P14 a handler that takes another's place gets the rest of the batch", arguments: LoopKind.available)
    func exchanged(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let (first, second) = (Told(), Told())
            var roundtrip = true
            first.onReceive = { if roundtrip { try $0.start(second) } }
            let sent = pattern(megabyte)
            async let sending: Void = onThread {
                try peer.send(sent)
                try peer.finishWriting()
            }
            try connection.start(first)
            try await sending
            try await until("it is closed", on: loop) { connection.isClosed }
            roundtrip = false
            #expect(first.events == ["made", "received"])
            #expect(second.events.first == "made")
            #expect(second.events.suffix(2) == ["ended", "lost"])
            #expect(!second.bytes.isEmpty)
            #expect(difference(first.bytes + second.bytes, sent) == nil)
        }
    }

    @Test(
        "P14 a handler is exchanged between callbacks, and to one with memory of its own", arguments: LoopKind.available
    )
    func exchangedOutside(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let first = Told()
            try connection.start(first)
            try peer.send([1])
            try await until("the byte is here", on: loop) { first.bytes == [1] }
            let second = Bowl(size: 3)
            try connection.start(second)
            try peer.send([2, 3, 4, 5])
            try await until("the bytes are here", on: loop) { second.bytes == [2, 3, 4, 5] }
            let third = Told()
            try connection.start(third)
            connection.abort()
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(first.events == ["made", "received"])
            #expect(second.counts == [3, 1] && second.events.isEmpty)
            #expect(third.events == ["made", "lost"])
            #expect(throws: LoopError.connectionClosed(operation: "start")) { try connection.start(Told()) }
        }
    }

    // MARK: P15

    @Test(
        "P15 addresses and descriptor: known from the start, addresses also after the end",
        arguments: LoopKind.available)
    func whatItSays(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let client = try await Connection.connect(to: listener.address, on: loop)
            let accepted = try await listener.accept()
            listener.close()
            let address = try #require(client.localAddress)
            #expect(address.host == "127.0.0.1" && address.port != 0)
            #expect(client.remoteAddress == listener.address)
            #expect(accepted.remoteAddress == address)
            #expect(accepted.localAddress == listener.address)
            #expect(accepted.descriptor != client.descriptor && accepted.descriptor >= 0)

            // The kernel does not know the peer any more.
            let told = Told()
            try accepted.start(told)
            client.abort(reset: true)
            try await until("both are closed", on: loop) { accepted.isClosed && client.isClosed }
            // Their numbers are others' now.
            let (descriptor, other) = try Peer.pair()
            #expect(told.lostError.errno == ECONNRESET)
            #expect(accepted.remoteAddress == address)
            #expect(accepted.localAddress == listener.address)
            #expect(client.localAddress == address)
            #expect(accepted.descriptor == -1)
            close(descriptor)
            withExtendedLifetime(other) {}
            let (unnamed, _) = try makePair(on: loop)
            #expect(unnamed.localAddress == nil && unnamed.remoteAddress == nil)
        }
    }

    // MARK: P18

    @Test(
        "P18 one send is under way, whatever is written meanwhile, and what was written may change",
        arguments: LoopKind.available.filter { $0 == .proactor })
    func oneSend(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (source, sourcePeer) = try makePair(on: loop)
            let (connection, peer) = try makePair(on: loop)
            var expected = pattern(megabyte)
            try connection.send(copying: expected.span.bytes)
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations == 1 }
            for round in 0..<20 {
                var small = pattern(100, from: round)
                expected += small
                try connection.send(copying: small.span.bytes)
                for index in small.indices { small[index] = 0 }  // ours again
                try await loop.sleep(for: .microseconds(50))
                #expect(loop.waitingOperations == 1)
            }
            // A lease is sent as it is: it is not back before the kernel has taken it.
            try sourcePeer.send([7, 8, 9])
            try connection.send(try await source.readLease().take())
            expected += [7, 8, 9]
            try await somePasses(loop)
            #expect(loop.waitingOperations == 1)
            #expect(loop.statistics.leasedBuffers > 0)
            let count = expected.count
            let received = try await onThread { try peer.receive(exactly: count) }
            #expect(difference(received, expected) == nil)
            try await until("all is sent", on: loop) { connection.unsentByteCount == 0 }
            #expect(loop.waitingOperations == 0)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }
}

/// Receives into a small piece of memory.
final class Bowl: BufferedStreamHandler {
    private let memory: UnsafeMutableRawBufferPointer
    var size: Int
    private(set) var bytes: [UInt8] = []
    private(set) var counts: [Int] = []
    private(set) var hints: [Int] = []
    private(set) var events: [String] = []
    private(set) var lostError: LoopError?
    var onCount: (Connection) throws -> Void = { _ in }
    var onLend: () throws -> Void = {}

    init(size: Int) {
        self.size = size
        memory = .allocate(byteCount: 64 * 1024, alignment: 1)
    }

    deinit { memory.deallocate() }

    func withReceiveBuffer(hint: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int) throws {
        try onLend()
        hints.append(hint)
        _ = body(UnsafeMutableRawBufferPointer(rebasing: memory[..<size]))
    }

    func received(count: Int, on connection: Connection) throws {
        counts.append(count)
        bytes += memory[..<count]
        try onCount(connection)
    }

    func ended(_ connection: Connection) {
        events.append("ended")
        connection.closeSoon()
    }

    func lost(_ connection: Connection, error: LoopError?) {
        events.append("lost")
        lostError = error
    }
}
