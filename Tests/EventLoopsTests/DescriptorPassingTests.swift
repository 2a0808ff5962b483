// SPDX-License-Identifier: Apache-2.0
//
// DescriptorPassingTests.swift: descriptors that travel over Unix sockets, and that none stays open by mistake.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)), .realKernel("descriptors in messages"))
struct DescriptorPassingTests {
    /// Sends `count` descriptors of a pipe's writing end, and closes it here. The pipe has ended once nobody has one.
    private static func send(_ count: Int, over socket: Socket, with bytes: [UInt8] = [1]) async throws -> Ends {
        let pipe = try PipePair()
        try await socket.send(descriptors: Array(repeating: pipe.writeEnd, count: count), with: bytes)
        close(pipe.writeEnd)
        return Ends(readEnd: pipe.readEnd)
    }

    private final class Ends: Sendable {
        let readEnd: Int32
        init(readEnd: Int32) { self.readEnd = readEnd }
        deinit { close(readEnd) }
        func next() -> Int {
            var byte: UInt8 = 0
            return read(readEnd, &byte, 1)
        }
        /// Whether nobody has an end to write to.
        var haveEnded: Bool { next() == 0 }
    }

    /// What came, of which no descriptor is taken.
    private struct Received {
        let bytes: [UInt8]
        let count: Int
        let isTruncated: Bool
        nonisolated(nonsending) init(_ socket: Socket, room: Int = Socket.descriptorsPerMessage) async throws {
            let message = try await socket.receiveDescriptors(max: 100, descriptors: room)
            (bytes, count, isTruncated) = (message.bytes, message.descriptorCount, message.isTruncated)
        }
    }

    @Test("F61 N9 descriptors come with their bytes, close-on-exec, and work", arguments: LoopKind.available)
    func passed(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, other) = try Socket.pair(on: loop)
            let receiving = loop.spawn {
                var message = try await other.receiveDescriptors(max: 100)
                return (message.bytes, message.isTruncated, message.takeDescriptors(), message.descriptorCount)
            }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            let ends = try await Self.send(2, over: one, with: [1, 2, 3])
            let (bytes, isTruncated, descriptors, left) = try await receiving.value
            #expect(bytes == [1, 2, 3])
            #expect(!isTruncated)
            #expect(descriptors.count == 2)
            #expect(left == 0)
            #expect(ends.next() == -1)
            for descriptor in descriptors {
                #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
                #expect(write(descriptor, "x", 1) == 1)
                close(descriptor)
                #expect(ends.next() == 1)
            }
            try await until("all are closed", on: loop) { ends.haveEnded }

            try await one.sendAll([9])
            let plain = try await Received(other)
            #expect(plain.bytes == [9])
            #expect(plain.count == 0)
            one.close()
            let end = try await Received(other)
            #expect(end.bytes == [])
        }
    }

    @Test("F61 of descriptors that are too many, or not wanted, none stays open", arguments: LoopKind.available)
    func truncated(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, other) = try Socket.pair(on: loop)
            for room in 0...3 {
                let ends = try await Self.send(4, over: one)
                let message = try await Received(other, room: room)
                #expect(message.isTruncated)
                #expect(message.bytes == [1])
                #expect(message.count == room)
                try await until("all are closed", on: loop) { ends.haveEnded }
            }
            let discarded = try await Self.send(3, over: one)
            let message = try await Received(other)
            #expect(message.count == 3)
            #expect(!message.isTruncated)
            try await until("what nobody took is closed", on: loop) { discarded.haveEnded }
            let unasked = try await Self.send(3, over: one)
            let bytes = try await other.receive(max: 100)
            #expect(bytes == [1])
            try await until("what nobody asked for is closed", on: loop) { unasked.haveEnded }
            let unread = try await Self.send(3, over: one)
            other.close()
            try await until("what was under way is closed", on: loop) { unread.haveEnded }
        }
    }

    @Test("N9 as many descriptors as the kernel passes, and a great many bytes", arguments: LoopKind.available)
    func many(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, other) = try Socket.pair(on: loop)
            let sent = pattern(1 << 20)
            let sending = loop.spawn { try await Self.send(Socket.descriptorsPerMessage, over: one, with: sent) }
            var bytes: [UInt8] = []
            var count = 0
            while bytes.count < sent.count {
                let message = try await other.receiveDescriptors(max: 1 << 16)
                bytes += message.bytes
                count += message.descriptorCount
            }
            #expect(count == Socket.descriptorsPerMessage)
            #expect(difference(bytes, sent) == nil)
            let ends = try await sending.value
            try await until("all are closed", on: loop) { ends.haveEnded }
        }
    }

    @Test("N9 no bytes, no descriptors, too many or closed ones are errors", arguments: LoopKind.available)
    func errors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, other) = try Socket.pair(on: loop)
            func refusal(_ descriptors: [Int32], _ bytes: [UInt8]) async -> Int32 {
                let error = await sendError { try await one.send(descriptors: descriptors, with: bytes) }
                #expect(error?.bytesSent == 0)
                return (error?.cause).errno
            }
            let own = one.descriptor
            #expect(await refusal([own], []) == EINVAL)
            #expect(await refusal([], [1]) == EINVAL)
            #expect(await refusal(Array(repeating: own, count: Socket.descriptorsPerMessage + 1), [1]) == EINVAL)
            #expect(await refusal([-1], [1]) == EBADF)
            #expect(await thrown { _ = try await other.receiveDescriptors(max: 0) }.errno == EINVAL)
            #expect(await thrown { _ = try await other.receiveDescriptors(max: 1, descriptors: -1) }.errno == EINVAL)
        }
    }
}
