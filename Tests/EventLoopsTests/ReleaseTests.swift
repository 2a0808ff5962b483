// SPDX-License-Identifier: Apache-2.0
//
// ReleaseTests.swift: connections that give their descriptor away: what comes with it, what is refused, what goes on.

import CSimulator
import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

/// The new owner of a descriptor, with calls that block.
private func owner(of released: ReleasedConnection) -> Peer {
    let flags = fcntl(released.descriptor, F_GETFL)
    #expect(flags & O_NONBLOCK != 0)
    #expect(fcntl(released.descriptor, F_GETFD) == FD_CLOEXEC)
    _ = fcntl(released.descriptor, F_SETFL, flags & ~O_NONBLOCK)
    return Peer(descriptor: released.descriptor)
}

/// A connection over TCP and one over a pair of local sockets: on the ring they receive in different ways.
private func bothKinds(_ loop: any Loop) async throws -> [(Connection, Peer)] {
    [try await makeConnection(on: loop), try makePair(on: loop)]
}

/// A release under way: more is queued than the kernel takes.
private func releaseUnderWay(
    of connection: Connection, on loop: any Loop
) async throws -> Task<ReleasedConnection, any Error> {
    try connection.send(copying: pattern(4 * megabyte).span.bytes)
    let releasing = loop.spawn { try await connection.release() }
    try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
    return releasing
}

@Suite("Releasing connections", .timeLimit(.minutes(1)))
struct ReleaseTests {
    private static let busy = LoopError.busy(operation: "release")
    private static let closed = LoopError.connectionClosed(operation: "release")

    // MARK: Bytes

    /// The release comes anywhere in the stream: at once, after a first read, after many.
    @Test("N9 C10 no byte is lost while the peer goes on sending", arguments: LoopKind.available)
    func unreadBytes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let sent = pattern(2 * megabyte)
            for wanted in [0, 1, 1000, 100_000, megabyte] {
                for (connection, peer) in try await bothKinds(loop) {
                    async let sending: Void = onThread {
                        try peer.send(sent)
                        try peer.finishWriting()
                    }
                    let read = try await connection.read(atLeast: wanted)
                    try await loop.sleep(for: .microseconds(wanted % 500))
                    let released = try await connection.release()
                    #expect(connection.isClosed)
                    let rest = try await onThread { try owner(of: released).receiveToEnd() }
                    try await sending
                    #expect(difference(read + released.received + rest, sent) == nil)
                    #expect(loop.statistics.leasedBuffers == 0)
                }
            }
        }
    }

    @Test(
        "N9 C10 what arrived and was not read comes with the descriptor, and the end is still to be read",
        arguments: LoopKind.available)
    func everythingArrived(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for (connection, peer) in try await bothKinds(loop) {
                // The first read makes the ring receive ahead.
                try peer.send([0])
                #expect(try await connection.read(atLeast: 1) == [0])
                for byte: UInt8 in 1...5 { try peer.send([byte]) }
                try peer.finishWriting()
                for _ in 0..<5 { try await loop.sleep(for: .milliseconds(1)) }
                let released = try await connection.release()
                let rest = try await onThread { try owner(of: released).receiveToEnd() }
                #expect(released.received + rest == [1, 2, 3, 4, 5])
            }
        }
    }

    /// More than the loop receives ahead of a reader: it has stopped by itself.
    @Test("N9 C10 a peer that has been held back goes on with the new owner", arguments: LoopKind.available)
    func heldBack(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let sent = pattern(8 * megabyte)
            async let sending: Void = onThread { try peer.send(sent) }
            let read = try await connection.read(atLeast: 1)
            for _ in 0..<10 { try await loop.sleep(for: .milliseconds(1)) }
            let released = try await connection.release()
            let left = sent.count - read.count - released.received.count
            let rest = try await onThread { try owner(of: released).receive(exactly: left) }
            try await sending
            #expect(difference(read + released.received + rest, sent) == nil)
        }
    }

    @Test("N9 C10 what was written arrives before what the new owner sends", arguments: LoopKind.available)
    func queuedWrites(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for (connection, peer) in try await bothKinds(loop) {
                let releasing = try await releaseUnderWay(of: connection, on: loop)
                #expect(!connection.isClosed && connection.unsentByteCount > 0)
                let first = try await onThread { try peer.receive(exactly: 4 * megabyte) }
                let new = owner(of: try await releasing.value)
                try new.send([1, 2, 3])
                #expect(difference(first, pattern(4 * megabyte)) == nil)
                #expect(try peer.receive() == [1, 2, 3])
                // Nobody has shut anything down.
                try peer.send([4])
                #expect(try new.receive() == [4])
                new.close()
                #expect(peer.receiveEnd() == 0)
            }
        }
    }

    @Test("N9 C10 a half-close that was asked follows what was written", arguments: LoopKind.available)
    func finished(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try connection.send(copying: pattern(4 * megabyte).span.bytes)
            try connection.finishWriting()
            async let received = onThread { try peer.receiveToEnd() }
            let new = owner(of: try await connection.release())
            #expect(difference(try await received, pattern(4 * megabyte)) == nil)
            try peer.send([1])
            #expect(try new.receive() == [1])
        }
    }

    // MARK: What is refused

    @Test("N9 C10 in use it is not given away, and the use goes on", arguments: LoopKind.available)
    func inUse(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let reading = loop.spawn { try await connection.read(atLeast: 3) }
            try await until("it reads", on: loop) { loop.waitingOperations == 1 }
            #expect(await thrown { _ = try await connection.release() } == Self.busy)
            try peer.send([1, 2, 3])
            #expect(try await reading.value == [1, 2, 3])

            connection.writeHighWaterMark = 1000
            let writing = loop.spawn { try await connection.write(pattern(4 * megabyte)) }
            try await until("it writes", on: loop) { connection.unsentByteCount > 0 && loop.waitingOperations > 0 }
            #expect(await thrown { _ = try await connection.release() } == Self.busy)
            let received = try await onThread { try peer.receive(exactly: 4 * megabyte) }
            try await writing.value
            #expect(difference(received, pattern(4 * megabyte)) == nil)
            let released = try await connection.release()
            #expect(released.received.isEmpty)
            close(released.descriptor)
        }
    }

    @Test("N9 C10 while it is given away, whoever else wants it is refused", arguments: LoopKind.available)
    func othersMeanwhile(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let releasing = try await releaseUnderWay(of: connection, on: loop)
            #expect(await thrown { _ = try await connection.release() } == Self.busy)
            #expect(await thrown { _ = try await connection.read() } == .busy(operation: "read"))
            #expect(await thrown { try await connection.write([1]) } == .busy(operation: "write"))
            #expect(await thrown { try await connection.flush() } == .busy(operation: "flush"))
            #expect(await thrown { try connection.start(Notes()) } == .busy(operation: "start"))
            let received = try await onThread { try peer.receive(exactly: 4 * megabyte) }
            #expect(difference(received, pattern(4 * megabyte)) == nil)
            let released = try await releasing.value
            #expect(await thrown { _ = try await connection.release() } == Self.closed)
            #expect(await thrown { _ = try await connection.read() } == .connectionClosed(operation: "read"))
            #expect(await thrown { try await connection.write([1]) } == .connectionClosed(operation: "write"))
            #expect(throws: LoopError.connectionClosed(operation: "start")) { try connection.start(Notes()) }
            #expect(connection.descriptor == -1)
            await connection.close()
            connection.abort(reset: true)
            #expect(isOpen(released.descriptor))
            close(released.descriptor)
        }
    }

    @Test("N9 C10 closed, broken, or on another thread, it is not given away", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            let elsewhere = try await onThread {
                let result = Log<LoopError?>()
                let end = Latch()
                Task.immediate {
                    result.append(await thrown { _ = try await connection.release() })
                    end.open()
                }
                #expect(end.wait())
                return result.all
            }
            #expect(elsewhere == [.wrongThread(operation: "release")])

            let reading = loop.spawn { try await connection.read() == nil }
            try await until("it reads", on: loop) { loop.waitingOperations == 1 }
            peer.reset()
            #expect(await thrown { _ = try await reading.value }.errno == ECONNRESET)
            #expect(await thrown { _ = try await connection.release() }.errno == ECONNRESET)
            #expect(!connection.isClosed)
            #expect(await thrown { _ = try await connection.read() }.errno == ECONNRESET)
            await connection.close()
            #expect(await thrown { _ = try await connection.release() } == Self.closed)
        }
    }

    @Test(
        "N9 C10 a peer that goes away while it is given away is told, and what had come stays",
        arguments: LoopKind.available)
    func brokenMeanwhile(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            try peer.send([0])
            #expect(try await connection.read(atLeast: 1) == [0])
            try peer.send([1, 2, 3])
            let releasing = try await releaseUnderWay(of: connection, on: loop)
            peer.close()
            #expect([EPIPE, ECONNRESET].contains(await thrown { _ = try await releasing.value }.errno))
            #expect(try await connection.read(atLeast: 3) == [1, 2, 3])
            await connection.close()
        }
    }

    // MARK: Giving up

    @Test("N9 C10 cancelled, it stays, and goes on as before", arguments: LoopKind.available)
    func cancelled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for (connection, peer) in try await bothKinds(loop) {
                try peer.send([0])
                #expect(try await connection.read(atLeast: 1) == [0])
                try peer.send([1, 2, 3])
                let releasing = try await releaseUnderWay(of: connection, on: loop)
                releasing.cancel()
                #expect(await thrown { _ = try await releasing.value } == .cancelled(operation: "release"))
                async let received = onThread { try peer.receive(exactly: 4 * megabyte + 2) }
                try await connection.write([8, 9])
                try peer.send([4])
                #expect(try await connection.read(atLeast: 4) == [1, 2, 3, 4])
                #expect(difference(try await received, pattern(4 * megabyte) + [8, 9]) == nil)
                let released = try await connection.release()
                let new = owner(of: released)
                try peer.send([5])
                #expect(released.received.isEmpty)
                #expect(try new.receive() == [5])
            }
        }
    }

    @Test("N9 C10 closed meanwhile, it is closed", arguments: LoopKind.available)
    func closedMeanwhile(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for polite in [true, false] {
                let (connection, peer) = try makePair(on: loop)
                let number = connection.descriptor
                let releasing = try await releaseUnderWay(of: connection, on: loop)
                if polite { connection.closeSoon() } else { connection.abort() }
                let received = try await onThread { try peer.receiveToEnd() }
                #expect(await thrown { _ = try await releasing.value } == Self.closed)
                #expect(polite ? received.count == 4 * megabyte : received.count < 4 * megabyte)
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(connection.descriptor == -1 && number >= 0)
            }
        }
    }

    @Test("N9 C10 a loop that closes meanwhile ends the wait", arguments: LoopKind.available)
    func loopClosesMeanwhile(kind: LoopKind) async throws {
        let (peer, releasing) = try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            try watch(loop)
            return try loop.run {
                let (connection, peer) = try makePair(on: loop)
                return (peer, try await releaseUnderWay(of: connection, on: loop))
            }
        }
        #expect(await thrown { _ = try await releasing.value } == Self.closed)
        _ = try await onThread { try peer.receiveToEnd() }
    }

    // MARK: Handlers

    @Test("N9 C10 a handler is told of the loss, once and later, and of nothing else", arguments: LoopKind.available)
    func handler(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for paused in [false, true] {
                for (connection, peer) in try await bothKinds(loop) {
                    weak var gone: Notes?
                    do {
                        let notes = Notes()
                        gone = notes
                        try connection.start(notes)
                        try peer.send([1])
                        try await until("the byte is here", on: loop) { notes.bytes == [1] }
                        if paused { connection.pauseReading() }
                        try peer.send([2, 3])
                        let released = try await connection.release()
                        #expect(!notes.events.contains("lost"))
                        try peer.send([4])
                        try await until("the loss is told", on: loop) { notes.events.contains("lost") }
                        #expect(notes.events == ["received", "lost"] || !paused)
                        #expect(notes.events.count { $0 == "lost" } == 1 && notes.events.last == "lost")
                        #expect(notes.lostError == nil)
                        try peer.finishWriting()
                        let rest = try await onThread { try owner(of: released).receiveToEnd() }
                        #expect(notes.bytes + released.received + rest == [1, 2, 3, 4])
                    }
                    #expect(gone == nil)
                }
            }
        }
    }

    @Test("N9 C10 a handler goes on if the release is cancelled, paused or not", arguments: LoopKind.available)
    func handlerStays(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for (paused, pausedMeanwhile) in [(false, false), (true, true), (false, true), (true, false)] {
                let (connection, peer) = try makePair(on: loop)
                let notes = Notes()
                try connection.start(notes)
                if paused { connection.pauseReading() }
                let releasing = try await releaseUnderWay(of: connection, on: loop)
                try peer.send([1, 2])
                if pausedMeanwhile { connection.pauseReading() } else if paused { connection.resumeReading() }
                for _ in 0..<3 { try await loop.sleep(for: .milliseconds(1)) }
                #expect(notes.events.isEmpty && !connection.isReading)
                releasing.cancel()
                #expect(await thrown { _ = try await releasing.value } == .cancelled(operation: "release"))
                #expect(connection.isReading == !pausedMeanwhile)
                if pausedMeanwhile {
                    for _ in 0..<3 { try await loop.sleep(for: .milliseconds(1)) }
                    #expect(notes.events.isEmpty)
                    connection.resumeReading()
                }
                try await until("the bytes are here", on: loop) { notes.bytes == [1, 2] }
                connection.abort()
                try await until("the loss is told", on: loop) { notes.events == ["received", "lost"] }
            }
        }
    }

    @Test(
        "N9 C10 a handler whose peer goes away meanwhile hears what came before, then of the loss",
        arguments: LoopKind.available)
    func handlerBreaks(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let notes = Notes()
            try connection.start(notes)
            let releasing = try await releaseUnderWay(of: connection, on: loop)
            try peer.send([1, 2])
            peer.close()
            #expect([EPIPE, ECONNRESET].contains(await thrown { _ = try await releasing.value }.errno))
            try await until("the loss is told", on: loop) { notes.events.last == "lost" }
            #expect(notes.bytes == [1, 2])
            #expect(notes.events.count { $0 == "lost" } == 1)
        }
    }

    // MARK: Afterwards

    @Test("N9 C10 a released connection goes on in a loop of any kind", arguments: LoopKind.available)
    func adoptedElsewhere(kind: LoopKind) async throws {
        for other in LoopKind.available {
            let (released, peer) = try await onLoop(kind) { loop in
                let (connection, peer) = try await makeConnection(on: loop)
                try peer.send([1, 2, 3])
                try await connection.write(try await connection.read(atLeast: 1))
                try peer.send([4, 5])
                let released = try await connection.release()
                #expect(connection.remoteAddress != nil)
                return (released, peer)
            }
            // That loop is closed.
            #expect(isOpen(released.descriptor))
            try await onLoop(other) { loop in
                let connection = try Connection(adopting: released.descriptor, on: loop)
                let sent = pattern(megabyte)
                async let received = onThread { try peer.receiveToEnd() }
                async let sending: Void = onThread {
                    try peer.send(sent)
                    try peer.finishWriting()
                }
                try await connection.write(released.received)
                try await connection.echo()
                try await sending
                #expect(difference(try await received, [1, 2, 3, 4, 5] + sent) == nil)
            }
        }
    }

    @Test("N9 C10 given away and taken back, many times over", arguments: LoopKind.available)
    func roundTrips(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for (first, peer) in try await bothKinds(loop) {
                var connection = first
                let number = connection.descriptor
                for round: UInt8 in 0..<50 {
                    let reading = loop.spawn { [connection] in try await connection.read(atLeast: 1) }
                    try peer.send([round])
                    #expect(try await reading.value == [round])
                    if round % 2 == 0 { try peer.send([round, round]) }
                    try connection.send(copying: [round].span.bytes)
                    let released = try await connection.release()
                    #expect(released.descriptor == number)
                    connection = try Connection(adopting: released.descriptor, on: loop)
                    let left = try await connection.read(atLeast: (round % 2 == 0 ? 2 : 0) - released.received.count)
                    #expect(released.received + left == (round % 2 == 0 ? [round, round] : []))
                    #expect(try peer.receive() == [round])
                }
                await connection.close()
                #expect(peer.receiveEnd() == 0)
                try await until("the objects are gone", on: loop) { loop.statistics.leasedBuffers == 0 }
            }
        }
    }

    /// The selector's epoll knows the descriptor for as long as anybody has it open.
    @Test(
        "N9 C10 what the new owner receives does not wake the loop", .realKernel("the simulated one has no idle time"),
        arguments: LoopKind.available)
    func noWakes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let reading = loop.spawn { try await connection.read(atLeast: 1) }
            try await until("it reads", on: loop) { loop.waitingOperations == 1 }
            try peer.send([1])
            _ = try await reading.value
            let released = try await connection.release()
            // As another process would have it.
            let new = Peer(descriptor: try check(fcntl(released.descriptor, F_DUPFD_CLOEXEC, 0), "dup"))
            close(released.descriptor)
            try peer.send([2])
            let before = loop.statistics.passes
            try await loop.sleep(for: .milliseconds(100))
            #expect(loop.statistics.passes - before < 20)
            #expect(try new.receive() == [2])
            // The number is another's by now, and that one is heard.
            let (other, otherPeer) = try makePair(on: loop)
            try otherPeer.send([3])
            #expect(try await other.read(atLeast: 1) == [3])
            await other.close()
        }
    }

    @Test("N9 C10 no descriptor is left, and none is closed that is another's", arguments: LoopKind.available)
    func descriptors(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [name = kind.rawValue as String] in
            let before = openDescriptorCount(of: "socket:")
            try await onLoop(named: name) { loop in
                for round in 0..<20 {
                    for (connection, peer) in try await bothKinds(loop) {
                        try peer.send([1, 2, 3])
                        if round % 2 == 0 { _ = try await connection.read(atLeast: 1) }
                        let released = try await connection.release()
                        let new = owner(of: released)
                        connection.abort()
                        try await loop.sleep(for: .zero)
                        #expect(isOpen(released.descriptor))
                        new.close()
                        #expect(!isOpen(released.descriptor))
                    }
                }
                let (last, peer) = try makePair(on: loop)
                let released = try await last.release()
                close(released.descriptor)
                // Its number is another's now, when the loop closes.
                withExtendedLifetime((last, peer)) {}
            }
            #expect(openDescriptorCount(of: "socket:") == before)
        }
    }
}
