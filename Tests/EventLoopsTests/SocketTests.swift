// SPDX-License-Identifier: Apache-2.0
//
// SocketTests.swift: sockets that the caller drives: receiving, sending, whose turn it is, and how it ends.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A socket over a pair of local ones, and its peer.
func socketPair(on loop: any Loop) throws -> (Socket, Peer) {
    let (descriptor, peer) = try Peer.pair()
    return (try Socket(adopting: descriptor, on: loop), peer)
}

/// The error that a transfer throws.
func sendError(_ body: () async throws -> Void) async -> SendError? {
    do { try await body() } catch { return error as? SendError }
    return nil
}

@Suite(.timeLimit(.minutes(1)))
struct SocketTests {
    private static let cancelled = LoopError.cancelled(operation: "receive")

    @Test("K1 receive takes at once what is there, and else waits", arguments: LoopKind.available)
    func receive(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 3, alignment: 1)
            defer { memory.deallocate() }
            try peer.send([1, 2, 3, 4, 5, 6])
            let journal = Journal<String>()
            try loop.callSoon { journal.note("a pass of the loop") }
            let first = try await socket.receive(max: 2)
            let count = try await socket.receive(into: memory)
            var span = memory.mutableBytes
            let spanned = try await socket.receive(into: &span)
            #expect(journal.entries == [])
            #expect(first == [1, 2])
            #expect(count == 3)
            #expect(spanned == 1)
            #expect(Array(memory) == [6, 4, 5])

            let later = loop.spawn { try await socket.receive(max: .max) }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            try peer.send([7, 8])
            let received = try await later.value
            #expect(received == [7, 8])
            try peer.finishWriting()
            let end = try await socket.receive(max: 10)
            #expect(end == [])
        }
    }

    @Test("K1 no room to receive into is an error, and not an end", arguments: LoopKind.available)
    func noRoom(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, _) = try socketPair(on: loop)
            for max in [0, -1, .min] {
                #expect(await thrown { _ = try await socket.receive(max: max) }.errno == EINVAL)
            }
            let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            #expect(await thrown { _ = try await socket.receive(into: nothing) }.errno == EINVAL)
        }
    }

    @Test("K3 all is sent, however small the room", arguments: LoopKind.available)
    func sendAll(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let bytes = pattern(3 << 20)
            async let received = onThread { try peer.receive(exactly: 3 << 20) }
            try await socket.sendAll(bytes)
            try await socket.sendAll([])
            let all = try await received
            #expect(difference(all, bytes) == nil)
        }
    }

    @Test(
        "K3 K7 a send that is cancelled says how much was sent, and the rest can follow", arguments: LoopKind.available)
    func cancelledSend(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let bytes = pattern(4 << 20)
            let sending = loop.spawn { try await socket.sendAll(bytes) }
            try await until("there is no room", on: loop) { loop.waitingOperations == 1 }
            sending.cancel()
            let error = try #require(await sendError { try await sending.value })
            #expect(error.cause == .cancelled(operation: "send"))
            #expect(0 < error.bytesSent && error.bytesSent < bytes.count)
            async let received = onThread { try peer.receiveToEnd() }
            try await socket.sendAll(Array(bytes[error.bytesSent...]))
            try socket.finishSending()
            let all = try await received
            #expect(difference(all, bytes) == nil)
        }
    }

    @Test("K3 to a peer that is gone nothing is sent", arguments: LoopKind.available)
    func peerGone(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            peer.close()
            let error = await sendError { try await socket.sendAll([1]) }
            #expect(error == SendError(bytesSent: 0, cause: .io(IOError(errno: EPIPE, operation: "send"))))
        }
    }

    @Test("K7 behind a receive that is cancelled the next one works at once", arguments: LoopKind.available)
    func afterCancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            for round in 0..<50 {
                let first = loop.spawn { try await socket.receive(max: 10) }
                try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
                let second = loop.spawn {
                    first.cancel()
                    return try await socket.receive(max: 10)
                }
                #expect(await thrown { _ = try await first.value } == Self.cancelled)
                try peer.send([UInt8(round)])
                let received = try await second.value
                #expect(received == [UInt8(round)])
            }
        }
    }

    @Test("K7 bytes that come with a cancel are not lost", arguments: LoopKind.available)
    func bytesAndCancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            var received: [UInt8] = []
            for round in 0..<100 {
                let task = loop.spawn { try await socket.receive(max: 10) }
                try await until("it waits", on: loop) { loop.waitingOperations == 1 }
                if round % 2 == 0 { task.cancel() }
                try peer.send([UInt8(round)])
                if round % 2 == 1 { task.cancel() }
                switch await task.result {
                case .success(let bytes): received += bytes
                case .failure(let error):
                    #expect(error as? LoopError == Self.cancelled)
                    received += try await socket.receive(max: 10)
                }
            }
            #expect(received == (0..<100).map { UInt8($0) })
        }
    }

    @Test("K8 of two that receive the second is refused and the first undisturbed", arguments: LoopKind.available)
    func twoReceivers(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let receiving = loop.spawn { try await socket.receive(max: 10) }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            let second = await thrown { _ = try await socket.receive(max: 10) }
            #expect(second == .busy(operation: "receive"))
            try peer.send([9])
            let received = try await receiving.value
            #expect(received == [9])
        }
    }

    @Test("K8 of two that send the second is refused and the first undisturbed", arguments: LoopKind.available)
    func twoSenders(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let bytes = pattern(2 << 20)
            let sending = loop.spawn { try await socket.sendAll(bytes) }
            try await until("there is no room", on: loop) { loop.waitingOperations == 1 }
            let second = await sendError { try await socket.sendAll([1]) }
            #expect(second == SendError(bytesSent: 0, cause: .busy(operation: "send")))
            async let received = onThread { try peer.receive(exactly: 2 << 20) }
            try await sending.value
            let all = try await received
            #expect(difference(all, bytes) == nil)
        }
    }

    @Test("K9 a descriptor that a connection has is refused", arguments: LoopKind.available)
    func owned(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, _) = try makePair(on: loop)
            let owned = LoopError.ownedByTransport(descriptor: connection.descriptor)
            #expect(throws: owned) { try Connection(adopting: connection.descriptor, on: loop) }
            #expect(await thrown { _ = try Socket(adopting: connection.descriptor, on: loop) } == owned)
            let listener = try Listener(on: loop, port: 0)
            let listening = LoopError.ownedByTransport(descriptor: listener.descriptor)
            #expect(await thrown { _ = try Socket(adopting: listener.descriptor, on: loop) } == listening)

            let (socket, peer) = try socketPair(on: loop)
            let taking = LoopError.ownedByTransport(descriptor: socket.descriptor)
            let taken = try Connection(adopting: socket.descriptor, on: loop)
            try peer.send([1])
            let address = listener.address
            #expect(await thrown { _ = try await socket.receive(max: 1) } == taking)
            #expect(await thrown { _ = try await socket.receiveDescriptors(max: 1) } == taking)
            #expect(await thrown { _ = try await socket.accept() } == taking)
            #expect(await thrown { try await socket.connect(to: address) } == taking)
            #expect(await sendError { try await socket.sendAll([1]) }?.cause == taking)
            #expect(try socket.release() == taken.descriptor)
            let first = try await taken.read(atLeast: 1)
            #expect(first == [1])
            taken.abort()
            connection.abort()
            listener.close()
        }
    }

    @Test(
        "K10 a blocking socket that is taken over blocks no more; what is none stays its owner's",
        arguments: LoopKind.available)
    func nonBlocking(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            func isSafe(_ socket: Socket) -> Bool {
                fcntl(socket.descriptor, F_GETFL) & O_NONBLOCK != 0
                    && fcntl(socket.descriptor, F_GETFD) & FD_CLOEXEC != 0
            }
            let (descriptor, _) = try Peer.pair()
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK == 0)
            #expect(isSafe(try Socket(adopting: descriptor, on: loop)))
            #expect(isSafe(try Socket(for: SocketAddress("127.0.0.1", 0), on: loop)))
            let (one, other) = try Socket.pair(on: loop)
            #expect(isSafe(one) && isSafe(other))

            let file = try check(open("/dev/null", O_RDONLY | O_CLOEXEC), "open")
            defer { close(file) }
            let datagram = try check(socket(AF_INET, datagramType, 0), "socket")
            defer { close(datagram) }
            #expect(await thrown { _ = try Socket(adopting: file, on: loop) }.errno == ENOTSOCK)
            #expect(await thrown { _ = try Socket(adopting: datagram, on: loop) }.errno == EPROTOTYPE)
            #expect(await thrown { _ = try Socket(adopting: -1, on: loop) }.errno == EBADF)
            #expect(fcntl(file, F_GETFD) >= 0)
            #expect(fcntl(datagram, F_GETFD) >= 0)
        }
    }

    // MARK: The end

    @Test("F21 closing a socket ends its waits first, and the peer sees it", arguments: LoopKind.available)
    func closing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let receiving = loop.spawn { try await socket.receive(max: 10) }
            let sending = loop.spawn { try await socket.sendAll(pattern(2 << 20)) }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            socket.close()
            socket.close()
            #expect(socket.isClosed)
            #expect(await thrown { _ = try await socket.receive(max: 1) } == .connectionClosed(operation: "receive"))
            #expect(await thrown { _ = try await receiving.value } == .connectionClosed(operation: "receive"))
            let error = try #require(await sendError { try await sending.value })
            #expect(error.cause == .connectionClosed(operation: "send"))
            #expect(socket.descriptor == -1)
            async let received = onThread { try peer.receiveToEnd() }
            let sent = try await received
            #expect(sent.count == error.bytesSent)
            socket.close()
        }
    }

    @Test("E8 waits of a socket end with the loop", arguments: LoopKind.available)
    func loopClose(kind: LoopKind) async throws {
        let (descriptor, peer) = try Peer.pair()
        let (socket, waits) = try await onLoop(kind) { loop in
            let socket = try Socket(adopting: descriptor, on: loop)
            let waits = [
                loop.spawn { _ = try await socket.receive(max: 10) },
                loop.spawn { try await socket.sendAll(pattern(2 << 20)) },
            ]
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            return (socket, waits)
        }
        #expect(await thrown { try await waits[0].value } == .closed)
        let error = try #require(await sendError { try await waits[1].value })
        #expect(error.cause == .closed)
        #expect(await thrown { _ = try await socket.receive(max: 10) } == .closed)
        socket.close()
        #expect(socket.descriptor == -1)
        async let received = onThread { try peer.receiveToEnd() }
        let sent = try await received
        #expect(sent.count == error.bytesSent)
    }

    @Test("F46 sockets belong to their loop's thread, but for closing", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, _) = try socketPair(on: loop)
            try await onThread {
                #expect(throws: LoopError.wrongThread(operation: "release")) { _ = try socket.release() }
                #expect(throws: LoopError.wrongThread(operation: "listen")) { try socket.listen() }
                socket.close()
            }
            try await until("it is closed", on: loop) { socket.descriptor == -1 }
        }
    }

    @Test("N9 a socket gives its descriptor back, unless it is in use", arguments: LoopKind.available)
    func release(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let waiting = loop.spawn { try await socket.receive(max: 10) }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            #expect(await thrown { _ = try socket.release() } == .busy(operation: "release"))
            waiting.cancel()
            #expect(await thrown { _ = try await waiting.value } == Self.cancelled)
            let number = socket.descriptor
            let descriptor = try socket.release()
            #expect(descriptor == number)
            #expect(socket.isClosed)
            #expect(await thrown { _ = try socket.release() } == .connectionClosed(operation: "release"))
            #expect(await thrown { _ = try await socket.receive(max: 1) } == .connectionClosed(operation: "receive"))
            socket.close()
            let connection = try Connection(adopting: descriptor, on: loop)
            try peer.send([1, 2])
            let received = try await connection.read(atLeast: 2)
            #expect(received == [1, 2])
            connection.abort()
        }
    }
}
