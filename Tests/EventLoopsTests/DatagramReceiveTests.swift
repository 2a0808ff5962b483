// SPDX-License-Identifier: Apache-2.0
//
// DatagramReceiveTests.swift: receiving datagrams as a task: waits, batches, memory of the caller's, groups.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Receiving datagrams", .datagrams, .timeLimit(.minutes(1)))
struct DatagramReceiveTests {
    @Test("K2 receive asks first: what is there takes no pass", arguments: LoopKind.available)
    func asksFirst(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            for number: UInt8 in 1...3 { try peer.send([number]) }
            let before = loop.statistics
            for number: UInt8 in 1...3 {
                let datagram = try await socket.receive()
                #expect(datagram.bytes == [number] && datagram.address.isUnnamed)
            }
            #expect(loop.statistics.passes == before.passes)
            #expect(loop.waitingOperations == 0)
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            try peer.send([4])
            let datagram = try await waiting.value
            #expect(datagram.bytes == [4])
        }
    }

    @Test(
        "K2 a flood reaches its receiver in order, whatever the batch", arguments: LoopKind.available, [1, 3, 32, 5000])
    func flood(kind: LoopKind, batch: UInt32) async throws {
        try await onLoop(kind) { loop in
            var options = DatagramOptions()
            options.receiveBatch = batch
            options.maximumDatagramSize = 600
            let (socket, peer) = try makeDatagramPair(on: loop, options: options)
            let send = Task.detached {
                try await onThread { for number in 0..<1500 { try peer.send(pattern(number % 500, from: number)) } }
            }
            for number in 0..<1500 {
                let datagram = try await socket.receive()
                let difference = difference(datagram.bytes, pattern(number % 500, from: number))
                #expect(difference == nil && !datagram.isTruncated, "datagram \(number)")
                if difference != nil { break }
            }
            try await send.value
        }
    }

    /// A receiver that never has to wait lets the others run nevertheless.
    @Test("K2 a busy receiver leaves the others their turn", arguments: LoopKind.available)
    func fairness(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var options = DatagramOptions()
            options.receiveBatch = 1
            let (socket, peer) = try makeDatagramPair(on: loop, options: options)
            let log = Log<String>()
            try loop.callSoon { log.append("called") }
            for _ in 0..<2000 where log.all.isEmpty {
                try peer.send([1])
                _ = try await socket.receive()
            }
            #expect(log.all == ["called"])
        }
    }

    @Test("K2 receive(into:) writes to the caller's memory; 0 means all of it", arguments: LoopKind.available)
    func into(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            var buffer = [UInt8](repeating: 9, count: 6)
            try peer.send([1, 2, 3])
            var part = try await socket.receive(into: &buffer)
            #expect(part.count == 3 && !part.isTruncated && part.address.isUnnamed)
            #expect(buffer == [1, 2, 3, 9, 9, 9])
            try peer.send([4, 5, 6])
            part = try await socket.receive(into: &buffer, count: 2)
            #expect(part.count == 2 && part.isTruncated)
            #expect(buffer == [4, 5, 3, 9, 9, 9])
            try peer.send([7, 8])
            part = try await socket.receive(into: &buffer, count: 2)
            #expect(part.count == 2 && !part.isTruncated)
            try peer.send([])
            part = try await socket.receive(into: &buffer)
            #expect(part.count == 0 && !part.isTruncated)
            // The end of one that was cut off is lost, and the next one whole.
            try peer.send([UInt8](1...7))
            try peer.send([1])
            part = try await socket.receive(into: &buffer)
            #expect(part.count == 6 && part.isTruncated && buffer == [1, 2, 3, 4, 5, 6])
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 1)
            defer { memory.deallocate() }
            part = try await socket.receive(into: memory)
            #expect(part.count == 1 && memory[0] == 1)
            try peer.send([2, 3])
            part = try await socket.receive(into: memory, count: 1)
            #expect(part.count == 1 && part.isTruncated && memory[0] == 2)
            var none: [UInt8] = []
            try peer.send([1])
            part = try await socket.receive(into: &none)
            #expect(part.count == 0 && part.isTruncated)
        }
    }

    @Test("K2 a cancelled receive loses nothing, and the next goes on at once", arguments: LoopKind.available)
    func cancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            for number: UInt8 in 0..<20 {
                let waiting = loop.spawn { try await socket.receive() }
                try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
                waiting.cancel()
                if number % 2 == 0 { try peer.send([number]) }
                let result = await waiting.result
                if number % 2 == 1 {
                    try peer.send([number])
                    #expect(throws: LoopError.cancelled(operation: "receive")) { _ = try result.get() }
                }
                if case .success(let datagram) = result {
                    #expect(datagram.bytes == [number])
                } else {
                    let datagram = try await socket.receive()
                    #expect(datagram.bytes == [number])
                }
                try await until("nothing is under way", on: loop) { loop.waitingOperations == 0 }
            }
            let cancelled = loop.spawn {
                withUnsafeCurrentTask { $0?.cancel() }
                return await thrown { _ = try await socket.receive() }
            }
            #expect(try await cancelled.value == .cancelled(operation: "receive"))
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            try peer.send([99])
            let datagram = try await waiting.value
            #expect(datagram.bytes == [99])
        }
    }

    @Test("K2 one receive at a time: others are told, and so is a handler", arguments: LoopKind.available)
    func busy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            #expect(await thrown { _ = try await socket.receive() } == .busy(operation: "receive"))
            #expect(throws: LoopError.busy(operation: "start")) { try socket.start(DatagramNotes()) }
            try peer.send([1])
            let datagram = try await waiting.value
            #expect(datagram.bytes == [1])
            try socket.start(DatagramNotes())
            #expect(await thrown { _ = try await socket.receive() } == .busy(operation: "receive"))
        }
    }

    @Test("K2 a receive that waits ends with the socket", arguments: LoopKind.available, [false, true])
    func closed(kind: LoopKind, abort: Bool) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let waiting = loop.spawn { await thrown { _ = try await socket.receive() } }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            if abort {
                await Task.detached { socket.abort() }.value
            } else {
                await socket.close()
            }
            #expect(try await waiting.value == .connectionClosed(operation: "receive"))
            try await until("the socket is closed", on: loop) { socket.isClosed && loop.waitingOperations == 0 }
            withExtendedLifetime(peer) {}
        }
    }

    /// What was received before the handler came, in one batch with what a task took.
    @Test("K2 a handler is told what a task has left", arguments: LoopKind.available)
    func handover(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            for number: UInt8 in 1...4 { try peer.send([number]) }
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [1])
            let notes = DatagramNotes()
            try socket.start(notes)
            #expect(notes.events == [], "never within the call")
            try peer.send([5])
            try await until("all were told", on: loop) { notes.datagrams.count == 4 }
            #expect(notes.datagrams == [[2], [3], [4], [5]])
        }
    }

    // MARK: Groups

    @Test(
        "D1 a group is joined and left, and own datagrams come back if they are to",
        .enabled(if: multicastRefusal == nil, "no groups at 127.0.0.1: \(multicastRefusal ?? "")"),
        arguments: LoopKind.available)
    func groups(kind: LoopKind) async throws {
        // A port of its own: 127.0.0.1 is the interface that has the groups, and the port tells the tests apart.
        try await onLoop(kind) { loop in
            let interface = MulticastInterface.address(try SocketAddress("127.0.0.1", 0))
            let receiver = try loop.bindDatagram(to: DatagramAddress("0.0.0.0", 0))
            let port = try #require(receiver.localAddress.socketAddress?.port)
            let group = try SocketAddress("239.7.\(kind == .selector ? 1 : 2).1", port)
            let sender = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            try sender.setMulticastInterface(interface)
            try sender.setMulticastTTL(0)
            try receiver.join(group: group, interface: interface)
            #expect(await thrown { try receiver.join(group: group, interface: interface) }.errno == EADDRINUSE)
            try await sender.send([1], to: group)
            var datagram = try await receiver.receive()
            #expect(datagram.bytes == [1] && datagram.address == sender.localAddress)
            // At this interface, everything comes back; the option is what can be looked at.
            for isOn in [false, true] {
                try sender.setMulticastLoop(isOn)
                #expect(option(Int32(IP_MULTICAST_LOOP), of: sender) == (isOn ? 1 : 0))
            }
            for hops: UInt8 in [0, 255, 1] {
                try sender.setMulticastTTL(hops)
                #expect(option(Int32(IP_MULTICAST_TTL), of: sender) == Int32(hops))
            }
            try await sender.send([2], to: group)
            datagram = try await receiver.receive()
            #expect(datagram.bytes == [2])
            try receiver.leave(group: group, interface: interface)
            #expect(await thrown { try receiver.leave(group: group, interface: interface) }.errno == EADDRNOTAVAIL)
            let noGroup = try SocketAddress("127.0.0.1", 1)
            #expect(await thrown { try receiver.join(group: noGroup, interface: interface) }.errno == EINVAL)
            let version6 = try SocketAddress("ff01::1", 1)
            #expect(await thrown { try receiver.join(group: version6) }.errno == EAFNOSUPPORT)
        }
    }
}

private func option(_ option: Int32, of socket: DatagramSocket) -> Int32 {
    var value: Int32 = -1
    var length = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(socket.descriptor, Int32(IPPROTO_IP), option, &value, &length)
    return value
}

/// Why a group cannot be used at 127.0.0.1; `nil`: it can.
private let multicastRefusal: String? = {
    if isSimulated { return "simulated" }
    do {
        let loop = try SelectorLoop()
        defer { try? loop.close() }
        let receiver = try loop.bindDatagram(to: DatagramAddress("0.0.0.0", 0))
        let interface = MulticastInterface.address(try SocketAddress("127.0.0.1", 0))
        let group = try SocketAddress("239.7.7.7", receiver.localAddress.socketAddress!.port)
        try receiver.join(group: group, interface: interface)
        try receiver.setMulticastInterface(interface)
        try receiver.sendNow([1], to: DatagramAddress(group))
        return nil
    } catch {
        return "\(error)"
    }
}()
