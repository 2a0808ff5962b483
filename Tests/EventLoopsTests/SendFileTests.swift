// SPDX-License-Identifier: Apache-2.0
//
// SendFileTests.swift: files sent on a connection.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let megabyte = 1024 * 1024

private let ways: [Connection.FileRoad] = [.native, .fallbackAlone]

extension Connection {
    fileprivate func send(
        _ file: TemporaryFile, from offset: Int = 0, _ count: Int? = nil, by road: FileRoad
    ) async throws(LoopError) -> Int {
        try await sendFile(file.descriptor, from: offset, count, road)
    }
}

@Suite("Sending files", .timeLimit(.minutes(1)), .realKernel("sendfile"))
struct SendFileTests {
    @Test(
        "P17 K6 a file arrives byte for byte, behind what was written and before what follows",
        arguments: LoopKind.available)
    func whole(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let content = pattern(3 * megabyte + 17)
            let file = try TemporaryFile(content)
            for tcp in [true, false] {
                for way in ways {
                    let (connection, peer) = tcp ? try await makeConnection(on: loop) : try makePair(on: loop)
                    async let received = onThread { try peer.receiveToEnd() }
                    let head = pattern(megabyte, from: 5)
                    try connection.send(copying: head.span.bytes)
                    let sent = try await connection.send(file, by: way)
                    #expect(sent == content.count)
                    #expect(file.position == content.count)
                    try await connection.write([1, 2, 3])
                    await connection.close()
                    let all = try await received
                    #expect(difference(all, head + content + [1, 2, 3]) == nil)
                    #expect(loop.statistics.leasedBuffers == 0)
                }
            }
        }
    }

    @Test(
        "P17 K6 a part of a file, wherever the file stands; what is not there is not sent",
        arguments: LoopKind.available)
    func part(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let content = pattern(10_000)
            let file = try TemporaryFile(content)
            for way in ways {
                let (connection, peer) = try makePair(on: loop)
                lseek(file.descriptor, 77, SEEK_SET)
                var count = try await connection.send(file, from: 1000, 2000, by: way)
                #expect(count == 2000 && file.position == 3000)
                #expect(try peer.receive(exactly: 2000) == Array(content[1000..<3000]))
                count = try await connection.send(file, from: 9990, 2000, by: way)
                #expect(count == 10 && file.position == 10_000)
                count = try await connection.send(file, from: 20_000, nil, by: way)
                #expect(count == 0 && file.position == 20_000)
                count = try await connection.send(file, from: 5, 0, by: way)
                #expect(count == 0 && file.position == 5)
                #expect(try peer.receive() == Array(content[9990...]))
            }
            let empty = try TemporaryFile([])
            let (connection, _) = try makePair(on: loop)
            let none = try await connection.sendFile(empty.descriptor)
            #expect(none == 0)
        }
    }

    @Test("P17 meanwhile writes are refused, and the end comes behind the file", arguments: LoopKind.available)
    func meanwhile(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let content = pattern(4 * megabyte)
            let file = try TemporaryFile(content)
            for way in ways {
                let (connection, peer) = try makePair(on: loop)
                let sending = loop.spawn { try await connection.send(file, by: way) }
                try await until("the kernel takes no more", on: loop) { loop.waitingOperations == 1 }
                #expect(throws: LoopError.busy(operation: "write")) {
                    try connection.send(copying: [UInt8(1)].span.bytes)
                }
                let again = await thrown { _ = try await connection.send(file, by: way) }
                #expect(again == .busy(operation: "sendFile"))
                let write = await thrown { try await connection.write([1]) }
                #expect(write == .busy(operation: "write"))
                try connection.finishWriting()
                let received = try await onThread { try peer.receiveToEnd() }
                #expect(difference(received, content) == nil)
                #expect(try await sending.value == content.count)
                let after = await thrown { _ = try await connection.send(file, by: way) }
                #expect(after == .finishedWriting)
                // Reading has gone on.
                try peer.send([9])
                #expect(try await connection.read(atLeast: 1) == [9])
            }
        }
    }

    @Test(
        "P17 a peer that goes away is an error, and no signal; the position tells how far it came",
        arguments: LoopKind.available)
    func peerGone(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let file = try TemporaryFile(pattern(8 * megabyte))
            for way in ways {
                let (connection, peer) = try makePair(on: loop)
                let sending = loop.spawn { try await connection.send(file, by: way) }
                try await until("the kernel takes no more", on: loop) { loop.waitingOperations == 1 }
                peer.close()
                let error = await thrown { _ = try await sending.value }
                #expect([EPIPE, ECONNRESET].contains(error.errno))
                #expect(1..<8 * megabyte ~= file.position)
                // The connection knows.
                let write = await thrown { try await connection.write([1]) }
                #expect([EPIPE, ECONNRESET].contains(write.errno))
                await connection.close()
            }
        }
    }

    @Test("P17 a handler hears of the loss when a file finds the peer gone", arguments: LoopKind.available)
    func handlerHears(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let file = try TemporaryFile(pattern(8 * megabyte))
            let (connection, peer) = try makePair(on: loop)
            let notes = Notes()
            notes.onEnd = { _ in }
            try connection.start(notes)
            connection.pauseReading()
            let sending = loop.spawn { try await connection.sendFile(file.descriptor) }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations >= 1 && file.position == 0 }
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(200)) }
            peer.close()
            let error = await thrown { _ = try await sending.value }
            #expect([EPIPE, ECONNRESET].contains(error.errno))
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(notes.events == ["lost"])
            #expect([EPIPE, ECONNRESET].contains(notes.lostError.errno))
        }
    }

    @Test("P17 cancelled, closed and aborted in the middle", arguments: LoopKind.available)
    func cutShort(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let content = pattern(8 * megabyte)
            let file = try TemporaryFile(content)
            for way in ways {
                for end in ["cancel", "close", "abort"] {
                    let (connection, peer) = try makePair(on: loop)
                    let sending = loop.spawn { try await connection.send(file, by: way) }
                    try await until("the kernel takes no more", on: loop) { loop.waitingOperations == 1 }
                    switch end {
                    case "cancel": sending.cancel()
                    case "close": connection.closeSoon()
                    default: connection.abort()
                    }
                    if end == "close", way == .fallbackAlone {
                        // What was read is queued, and a polite close sends that.
                        _ = try await onThread { try peer.receiveToEnd() }
                    }
                    let error = await thrown { _ = try await sending.value }
                    let expected: LoopError =
                        end == "cancel" ? .cancelled(operation: "sendFile") : .connectionClosed(operation: "sendFile")
                    #expect(error == expected, "\(end) \(way)")
                    let position = file.position
                    #expect(1..<8 * megabyte ~= position)
                    if end == "cancel" {
                        // The connection is whole: it may go on where it was cut off.
                        async let received = onThread { try peer.receiveToEnd() }
                        let rest = try await connection.send(file, from: position, nil, by: way)
                        #expect(position + rest == content.count)
                        await connection.close()
                        let all = try await received
                        #expect(difference(all, content) == nil, "\(way)")
                    } else {
                        try await until("it is closed", on: loop) { connection.isClosed }
                    }
                    #expect(loop.waitingOperations == 0)
                }
            }
        }
    }

    @Test("P17 K6 where the kernel refuses, the file is read, or it is an error", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            // Files of /proc are ordinary ones, of no size, which sendfile(2) does not know on all kernels.
            let file = try check(open("/proc/self/status", O_RDONLY | O_CLOEXEC), "open")
            defer { close(file) }
            let (connection, peer) = try makePair(on: loop)
            let count = try await connection.sendFile(file)
            #expect(count > 100)
            #expect(try peer.receive(exactly: count).starts(with: "Name:".utf8))
            await connection.close()
        }
    }

    @Test(
        "P17 what cannot be sent: no file, no ordinary one, negative numbers, a closed connection",
        arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let file = try TemporaryFile([1, 2, 3])
            let (connection, peer) = try makePair(on: loop)
            #expect(await thrown { _ = try await connection.sendFile(-1) }.errno == EBADF)
            #expect(await thrown { _ = try await connection.sendFile(peer.descriptor) }.errno == EINVAL)
            #expect(await thrown { _ = try await connection.sendFile(file.descriptor, offset: -1) }.errno == EINVAL)
            #expect(await thrown { _ = try await connection.sendFile(file.descriptor, count: -1) }.errno == EINVAL)
            // It came to no harm.
            let count = try await connection.sendFile(file.descriptor)
            #expect(count == 3)
            #expect(try peer.receive() == [1, 2, 3])
            connection.closeSoon()
            let closed = LoopError.connectionClosed(operation: "sendFile")
            #expect(await thrown { _ = try await connection.sendFile(file.descriptor) } == closed)
            await connection.close()
            #expect(await thrown { _ = try await connection.sendFile(file.descriptor) } == closed)
        }
    }

    @Test(
        "F66 a file that is cut short while it is sent: so much and no more, and no wait", arguments: LoopKind.available
    )
    func truncated(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let content = pattern(16 * megabyte)
            for way in ways {
                let file = try TemporaryFile(content)
                let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
                let sending = loop.spawn { try await connection.send(file, by: way) }
                // The peer does not read: the send waits, somewhere in the middle.
                try await until("the send waits for room", on: loop) { loop.waitingOperations > 0 }
                #expect(ftruncate(file.descriptor, off_t(megabyte / 2)) == 0)
                async let received = onThread { try peer.receiveToEnd() }
                let sent = try await sending.value
                await connection.close()
                let all = try await received
                #expect(all.count == sent)
                #expect(sent < content.count)
                #expect(
                    difference(Array(all.prefix(megabyte / 2)), Array(content.prefix(all.prefix(megabyte / 2).count)))
                        == nil)
            }
        }
    }

    @Test("P17 F24 a file that a close cuts short touches no socket but its own", arguments: LoopKind.available)
    func closedNumber(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let file = try TemporaryFile(pattern(8 * megabyte))
            for abort in [false, true] {
                let (connection, peer) = try makePair(on: loop)
                let sending = loop.spawn { try await connection.send(file, by: .native) }
                try await until("the kernel takes no more", on: loop) { loop.waitingOperations == 1 }
                try connection.finishWriting()
                let number = connection.descriptor
                let strangers = Log<(descriptor: Int32, peer: Peer)>()
                try loop.callSoon {
                    // Runs before the task that sends, and perhaps behind the close.
                    try loop.callSoon {
                        while strangers.all.count < 4 { strangers.append(try Peer.pair()) }
                    }
                    if abort { connection.abort() } else { connection.closeSoon() }
                }
                let error = await thrown { _ = try await sending.value }
                #expect(error == .connectionClosed(operation: "sendFile"))
                for stranger in strangers.all {
                    #expect(send(stranger.descriptor, "x", 1, Int32(MSG_NOSIGNAL)) == 1, "was \(number)")
                    close(stranger.descriptor)
                }
                peer.close()
            }
        }
    }
}
