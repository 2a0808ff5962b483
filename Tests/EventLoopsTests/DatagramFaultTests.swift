// SPDX-License-Identifier: Apache-2.0
//
// DatagramFaultTests.swift: datagrams of every size, and sockets that are closed at the worst moment.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Faults of datagrams", .datagrams, .timeLimit(.minutes(1)))
struct DatagramFaultTests {
    // MARK: F58

    @Test(
        "F58 empty and largest datagrams arrive whole, larger ones are refused by name", arguments: LoopKind.available)
    func sizes(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let server = try loop.bindDatagram(to: DatagramAddress(host, 0))
            let client = try loop.connectDatagram(to: server.localAddress)
            for size in [0, 1, 1472, 1473, 65506, 65507] {
                try await client.send(pattern(size, from: size))
                let datagram = try await server.receive()
                #expect(difference(datagram.bytes, pattern(size, from: size)) == nil)
                #expect(!datagram.isTruncated)
            }
            for size in [65508, 65535, 65536, 1 << 20] {
                let error = await thrown { try await client.send([UInt8](repeating: 1, count: size)) }
                #expect(error == .datagramTooLarge(byteCount: size))
                #expect(String(describing: error).contains("\(size)"))
            }
            try await client.send([1])
            let datagram = try await server.receive()
            #expect(datagram.bytes == [1])
        }
    }

    /// The size of the buffer decides, and the kernel tells.
    @Test("F58 a Unix datagram that is larger than the buffer is refused by name", arguments: LoopKind.available)
    func largeLocal(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let peer = try DatagramPeer(at: .unusedName())
            var options = DatagramOptions()
            options.sendBufferSize = 8192
            let socket = try loop.connectDatagram(to: peer.address, options: options)
            let size = 100_000
            #expect(
                await thrown { try await socket.send([UInt8](repeating: 1, count: size)) }
                    == .datagramTooLarge(byteCount: size))
            try await socket.send([1])
            #expect(try peer.receive() == [1])
        }
    }

    @Test(
        "F58 a datagram that is cut off says so, and the next is whole", arguments: LoopKind.available, [false, true])
    func truncated(kind: LoopKind, handled: Bool) async throws {
        try await onLoop(kind) { loop in
            var options = DatagramOptions()
            options.maximumDatagramSize = 16
            let (socket, peer) = try makeDatagramPair(on: loop, options: options)
            let sizes = [15, 16, 17, 1000, 0, 16]
            for size in sizes { try peer.send(pattern(size, from: size)) }
            var received: [[UInt8]] = []
            var truncated: [Bool] = []
            if handled {
                let notes = DatagramNotes()
                try socket.start(notes)
                try await until("all were told", on: loop) { notes.datagrams.count == sizes.count }
                (received, truncated) = (notes.datagrams, notes.truncated)
            } else {
                for _ in sizes {
                    let datagram = try await socket.receive()
                    received.append(datagram.bytes)
                    truncated.append(datagram.isTruncated)
                }
            }
            #expect(received == sizes.map { pattern(min($0, 16), from: $0) })
            #expect(truncated == sizes.map { $0 > 16 })
        }
    }

    // MARK: F60

    @Test(
        "F60 after a close within a callback there is none but that of the end", arguments: LoopKind.available,
        [false, true])
    func closeInCallback(kind: LoopKind, abort: Bool) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            // All of one batch.
            for number: UInt8 in 1...5 { try peer.send([number]) }
            let notes = DatagramNotes()
            notes.onDatagram = { [unowned notes] in
                if notes.datagrams.count < 2 { return }
                if abort { $0.abort() } else { $0.closeSoon() }
                #expect(notes.events == ["received", "received"], "never within the call")
            }
            try socket.start(notes)
            try await until("the end was told", on: loop) { notes.events.last == "lost" }
            for _ in 0..<20 { try await loop.sleep(for: .zero) }
            #expect(notes.events == ["received", "received", "lost"])
            #expect(notes.datagrams == [[1], [2]])
            #expect(socket.isClosed && loop.waitingOperations == 0)
        }
    }

    /// As libuv's udp_recv_cb_close_pollerr.
    @Test("F60 a close within the callback of an error", arguments: LoopKind.available)
    func closeInError(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let socket = try loop.connectDatagram(to: address)
            let notes = DatagramNotes()
            notes.onError = { $0.closeSoon() }
            try socket.start(notes)
            try await until("the socket is polled", on: loop) { loop.waitingOperations == 1 }
            try socket.sendNow([1])
            try? socket.sendNow([2])
            try await until("the end was told", on: loop) { notes.events.last == "lost" }
            for _ in 0..<20 { try await loop.sleep(for: .zero) }
            #expect(notes.events == ["error", "lost"])
            #expect(socket.isClosed && loop.waitingOperations == 0)
        }
    }

    @Test("F60 a socket closes another of the same pass, which is told the end alone", arguments: LoopKind.available)
    func closeTheOther(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pairs = [try makeDatagramPair(on: loop), try makeDatagramPair(on: loop)]
            let notes = [DatagramNotes(), DatagramNotes()]
            for index in 0..<2 {
                notes[index].onDatagram = { _ in pairs[1 - index].0.abort() }
                try pairs[index].0.start(notes[index])
            }
            try await until("both are polled", on: loop) { loop.waitingOperations == 2 }
            for (_, peer) in pairs { try peer.send([1]) }
            try await until("one was told", on: loop) { notes.contains { $0.events.last == "lost" } }
            let (first, second) = notes[0].events.last == "lost" ? (1, 0) : (0, 1)
            #expect(notes[first].events == ["received"])
            #expect(notes[second].events == ["lost"])
            #expect(!pairs[first].0.isClosed && pairs[second].0.isClosed)
        }
    }

    @Test("F60 a queue still goes out after a close within a callback", arguments: LoopKind.available)
    func flushAfterClose(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let notes = DatagramNotes()
            var count = 0
            notes.onDatagram = {
                count = try $0.fill()
                $0.closeSoon()
            }
            try peer.send([1])
            try socket.start(notes)
            try await until("it was told", on: loop) { notes.events == ["received"] }
            try peer.send([2])
            for number in 0..<count {
                let bytes = try await onThread { try peer.receive() }
                #expect(bytes == [UInt8(truncatingIfNeeded: number)])
            }
            try await until("the end was told", on: loop) { notes.events.count == 2 }
            #expect(notes.events == ["received", "lost"])
        }
    }

    @Test("F60 the socket and its handler are freed once it is closed", arguments: LoopKind.available)
    func freed(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            weak var socket: DatagramSocket?
            weak var handler: DatagramNotes?
            let peer: DatagramPeer
            do {
                let (made, other) = try makeDatagramPair(on: loop)
                let notes = DatagramNotes()
                notes.onDatagram = { $0.closeSoon() }
                try made.start(notes)
                (socket, handler, peer) = (made, notes, other)
            }
            try await until("the socket is polled", on: loop) { loop.waitingOperations == 1 }
            #expect(socket != nil && handler != nil, "a handler keeps both alive")
            try peer.send([1])
            try await until("both are freed", on: loop) { socket == nil && handler == nil }
            #expect(loop.waitingOperations == 0)
        }
    }
}
