// SPDX-License-Identifier: Apache-2.0
//
// SocketFileTests.swift: files that the kernel sends, and those that it does not.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)), .realKernel("sendfile"))
struct SocketFileTests {
    /// What sendfile(2) refuses to write to.
    private static func makeRefusing(_ socket: Socket) throws {
        try check(fcntl(socket.descriptor, F_SETFL, O_NONBLOCK | O_APPEND), "fcntl")
    }

    @Test("K6 a file is sent whole or in part, and its position is behind it", arguments: LoopKind.available)
    func parts(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let bytes = pattern(1_500_000)
            let file = try TemporaryFile(bytes)
            for refusing in [false, true] {
                let (socket, peer) = try socketPair(on: loop)
                if refusing { try Self.makeRefusing(socket) }
                async let received = onThread { try peer.receiveToEnd() }
                let whole = try await socket.sendFile(file.descriptor)
                #expect(whole == bytes.count)
                #expect(file.position == bytes.count)
                let part = try await socket.sendFile(file.descriptor, offset: 1000, count: 400_000)
                #expect(part == 400_000)
                #expect(file.position == 401_000)
                let end = try await socket.sendFile(file.descriptor, offset: 1_499_000, count: 5000)
                #expect(end == 1000)
                #expect(file.position == bytes.count)
                let behind = try await socket.sendFile(file.descriptor, offset: 2_000_000)
                #expect(behind == 0)
                try socket.finishSending()
                let all = try await received
                #expect(difference(all, bytes + bytes[1000..<401_000] + bytes[1_499_000...]) == nil)
            }
            let empty = try TemporaryFile([])
            let (socket, _) = try socketPair(on: loop)
            let none = try await socket.sendFile(empty.descriptor)
            #expect(none == 0)
        }
    }

    @Test("K6 what the kernel cannot send is refused, if there is to be no fallback", arguments: LoopKind.available)
    func notAvailable(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let file = try TemporaryFile(pattern(1000))
            try Self.makeRefusing(socket)
            let refused = await sendError {
                try await socket.sendFile(file.descriptor, offset: 10, fallback: false)
            }
            let cause = LoopError.sendFileNotAvailable(descriptor: file.descriptor)
            #expect(refused == SendError(bytesSent: 0, cause: cause))
            #expect(file.position == 10)

            let pipe = try PipePair()
            defer { pipe.close() }
            pipe.fill()
            for fallback in [false, true] {
                let error = await sendError { try await socket.sendFile(pipe.readEnd, fallback: fallback) }
                #expect(error?.cause == .sendFileNotAvailable(descriptor: pipe.readEnd))
            }
            try socket.finishSending()
            #expect(try peer.receiveToEnd() == [])
        }
    }

    @Test("K6 offsets below zero and counts that are none are errors, and move nothing", arguments: LoopKind.available)
    func arguments(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, _) = try socketPair(on: loop)
            let file = try TemporaryFile(pattern(1000))
            lseek(file.descriptor, 7, SEEK_SET)
            for (offset, count) in [(Int64(-1), Int?.none), (.min, 1), (0, 0), (0, -1)] {
                let error = try #require(
                    await sendError { try await socket.sendFile(file.descriptor, offset: offset, count: count) })
                #expect(LoopError?.some(error.cause).errno == EINVAL)
                #expect(file.position == 7)
            }
        }
    }

    @Test("K6 K7 one that is cancelled says how much was sent, as does the position", arguments: LoopKind.available)
    func cancelled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let bytes = pattern(4 << 20)
            let file = try TemporaryFile(bytes)
            for refusing in [false, true] {
                let (socket, peer) = try socketPair(on: loop)
                if refusing { try Self.makeRefusing(socket) }
                let sending = loop.spawn { try await socket.sendFile(file.descriptor, offset: 100) }
                try await until("there is no room", on: loop) { loop.waitingOperations == 1 }
                sending.cancel()
                let error = try #require(await sendError { _ = try await sending.value })
                #expect(error.cause == .cancelled(operation: refusing ? "send" : "sendFile"))
                #expect(0 < error.bytesSent && error.bytesSent < bytes.count)
                #expect(file.position == 100 + error.bytesSent)
                async let received = onThread { try peer.receiveToEnd() }
                try await socket.sendFile(file.descriptor, offset: Int64(100 + error.bytesSent))
                try socket.finishSending()
                let all = try await received
                #expect(difference(all, Array(bytes[100...])) == nil)
            }
        }
    }

    @Test("K6 to a peer that is gone: an error, and no fallback", arguments: LoopKind.available)
    func peerGone(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try socketPair(on: loop)
            let file = try TemporaryFile(pattern(1000))
            peer.close()
            let error = await sendError { try await socket.sendFile(file.descriptor) }
            #expect(error?.cause == .io(IOError(errno: EPIPE, operation: "sendFile")))
        }
    }
}
