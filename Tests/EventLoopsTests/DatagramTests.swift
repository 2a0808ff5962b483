// SPDX-License-Identifier: Apache-2.0
//
// DatagramTests.swift: datagram sockets: making them, sending, errors, queues, pauses.

import CSimulator
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let refused = LoopError.io(IOError(errno: ECONNREFUSED, operation: "receive"))

@Suite("Datagram sockets", .datagrams, .timeLimit(.minutes(1)))
struct DatagramTests {
    // MARK: D1

    @Test("D1 datagrams go both ways between a bound socket and a connected one", arguments: LoopKind.available)
    func roundTrip(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let server = try loop.bindDatagram(to: DatagramAddress(host, 0))
            #expect(server.remoteAddress == nil && !server.isConnected)
            let address = try #require(server.localAddress.socketAddress)
            #expect(address.host == host && address.port != 0)
            let client = try loop.connectDatagram(to: DatagramAddress(address))
            #expect(client.remoteAddress == server.localAddress && client.isConnected)
            let echo = loop.spawn {
                let datagram = try await server.receive()
                try await server.send(datagram.bytes + [3], to: datagram.address)
                return datagram
            }
            try await client.send([1, 2])
            let answer = try await client.receive()
            #expect(answer == Datagram(bytes: [1, 2, 3], address: server.localAddress, isTruncated: false))
            let asked = try await echo.value
            #expect(asked == Datagram(bytes: [1, 2], address: client.localAddress, isTruncated: false))
            await client.close()
            await server.close()
            #expect(client.isClosed && server.isClosed)
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("D1 IPv6, if this machine has it", .enabled(if: hasIPv6, "no ::1 here"), arguments: LoopKind.available)
    func version6(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try loop.bindDatagram(to: DatagramAddress("::1", 0))
            let client = try loop.connectDatagram(to: server.localAddress, from: DatagramAddress("::1", 0))
            try await client.send([6])
            let datagram = try await server.receive()
            #expect(datagram == Datagram(bytes: [6], address: client.localAddress, isTruncated: false))
            #expect("\(datagram.address)".hasPrefix("[::1]:"))
            try await server.send([7], to: #require(datagram.address.socketAddress))
            let answer = try await client.receive()
            #expect(answer.bytes == [7])
        }
    }

    /// 192.0.2.1 is set aside for documentation: no machine has it.
    @Test(
        "D1 the first pair of addresses that can be had is used, else the first error told",
        arguments: LoopKind.available)
    func pairs(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let peer = try DatagramPeer(host: host)
            let elsewhere = try DatagramAddress("192.0.2.1", 0)
            let here = try DatagramAddress(host, 0)
            let name = try DatagramAddress.unusedName()
            let socket = try loop.openDatagram(locals: [name, elsewhere, here], remotes: [peer.address])
            #expect(socket.localAddress.socketAddress?.host == host && socket.remoteAddress == peer.address)
            let bound = try loop.openDatagram(locals: [elsewhere, here], remotes: [])
            #expect(bound.localAddress.socketAddress?.host == host && !bound.isConnected)
            let connected = try loop.openDatagram(locals: [], remotes: [name, peer.address])
            #expect(connected.remoteAddress == peer.address)
            let first = await thrown { _ = try loop.openDatagram(locals: [elsewhere, peer.address], remotes: []) }
            #expect(first.errno == EADDRNOTAVAIL)
            #expect(String(describing: first).contains("192.0.2.1"))
            let second = await thrown { _ = try loop.openDatagram(locals: [peer.address, elsewhere], remotes: []) }
            #expect(second.errno == EADDRINUSE)
            let none = await thrown { _ = try loop.openDatagram(locals: [name], remotes: [peer.address]) }
            #expect(none.errno == EAFNOSUPPORT)
            let mixed = await thrown { _ = try loop.connectDatagram(to: peer.address, from: name) }
            #expect(mixed.errno == EAFNOSUPPORT)
        }
    }

    @Test("D1 an address is shared only by sockets that all want to", arguments: LoopKind.available)
    func reusePort(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            var shared = DatagramOptions()
            shared.reusePort = true
            let first = try loop.bindDatagram(to: DatagramAddress(host, 0), options: shared)
            let second = try loop.bindDatagram(to: first.localAddress, options: shared)
            #expect(second.localAddress == first.localAddress)
            #expect(await thrown { _ = try loop.bindDatagram(to: first.localAddress) }.errno == EADDRINUSE)
        }
    }

    @Test(
        "D1 with broadcast, a socket with a remote address sends there and receives from everybody",
        arguments: LoopKind.available)
    func broadcast(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let (peer, stranger) = (try DatagramPeer(host: host), try DatagramPeer(host: host))
            var options = DatagramOptions()
            options.broadcast = true
            let socket = try loop.connectDatagram(
                to: peer.address, from: DatagramAddress(host, 0), options: options)
            #expect(!socket.isConnected && socket.remoteAddress == peer.address)
            try await socket.send([1])
            #expect(try peer.receive() == [1])
            try stranger.send([2], to: socket.localAddress)
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [2] && datagram.address == stranger.address)
            #expect(
                await thrown { try await socket.send([3], to: stranger.address) }
                    == .connectedElsewhere(to: "\(peer.address)", not: "\(stranger.address)"))
            // Without the option, the kernel refuses.
            let everybody = try DatagramAddress("127.255.255.255", 9)
            let plain = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            #expect(await thrown { try await plain.send([1], to: everybody) }.errno == EACCES)
            let broadcaster = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0), options: options)
            try await broadcaster.send([1], to: everybody)
        }
    }

    @Test("D1 sizes of the kernel's buffers are set", arguments: LoopKind.available)
    func bufferSizes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var options = DatagramOptions()
            options.receiveBufferSize = 30_000
            options.sendBufferSize = 20_000
            let socket = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0), options: options)
            for (option, size) in [(SO_RCVBUF, 60_000), (SO_SNDBUF, 40_000)] {
                var value: Int32 = 0
                var length = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(socket.descriptor, SOL_SOCKET, option, &value, &length)
                #expect(value == size, "doubled by the kernel")
            }
        }
    }

    @Test(
        "D1 a descriptor is adopted if it is a datagram socket, and is the loop's from then on",
        arguments: LoopKind.available)
    func adopt(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            #expect(fcntl(socket.descriptor, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(socket.descriptor, F_GETFD) & FD_CLOEXEC != 0)
            #expect(socket.isConnected && socket.localAddress.isUnnamed)
            for direction in [WatchDirection.read, .write] {
                #expect(throws: LoopError.ownedByTransport(descriptor: socket.descriptor)) {
                    try loop.watch(socket.descriptor, direction) {}
                }
            }
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            #expect(
                await thrown { try await loop.readable(socket.descriptor) }
                    == .ownedByTransport(descriptor: socket.descriptor))
            #expect(!loop.unwatch(socket.descriptor, .read))
            #expect(await thrown { _ = try DatagramSocket(adopting: socket.descriptor, on: loop) } != nil)
            try peer.send([1])
            let datagram = try await waiting.value
            #expect(datagram.bytes == [1])
            let (stream, other) = try Peer.pair()
            defer { close(stream) }
            #expect(await thrown { _ = try DatagramSocket(adopting: stream, on: loop) }.errno == EPROTOTYPE)
            #expect(await thrown { _ = try DatagramSocket(adopting: -1, on: loop) }.errno == EBADF)
            withExtendedLifetime(other) {}
        }
    }

    @Test(
        "D1 calls on other threads, on closed sockets, and on closed loops are refused by name",
        arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        let (loop, socket, open) = try await onThread {
            let loop = try kind.makeLoop()
            let socket = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            let open = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            try loop.runWatched {
                _ = await Task.detached {
                    #expect(await thrown { _ = try await socket.receive() } == .wrongThread(operation: "receive"))
                    #expect(await thrown { try await socket.send([1]) } == .wrongThread(operation: "send"))
                    #expect(await thrown { try socket.pauseReading() } == .wrongThread(operation: "pauseReading"))
                    #expect(
                        await thrown { _ = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0)) }
                            == .wrongThread(operation: "open a datagram socket"))
                }.value
                await socket.close()
                await socket.close()
                #expect(await thrown { _ = try await socket.receive() } == .connectionClosed(operation: "receive"))
                #expect(await thrown { try await socket.send([1]) } == .connectionClosed(operation: "send"))
                #expect(await thrown { try await socket.flush() } == .connectionClosed(operation: "flush"))
                #expect(await thrown { try socket.start(DatagramNotes()) } == .connectionClosed(operation: "start"))
                socket.abort()
            }
            try loop.close()
            return (loop, socket, open)
        }
        for socket in [socket, open] {
            #expect(await thrown { _ = try await socket.receive() } == .closed)
            #expect(await thrown { try await socket.send([1]) } == .closed)
            await socket.close()
            socket.closeSoon()
            #expect(socket.isClosed)
        }
        #expect(await thrown { _ = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0)) } == .closed)
    }

    @Test("D1 the loop's close ends every wait and tells handlers", arguments: LoopKind.available)
    func loopClose(kind: LoopKind) async throws {
        let ends = Log<String>()
        let name = try DatagramAddress.unusedName()
        let tasks = try await onThread {
            var tasks: [Task<Void, any Error>] = []
            let loop = try kind.makeLoop()
            let (reading, readingPeer) = try makeDatagramPair(on: loop)
            let (writing, writingPeer) = try makeDatagramPair(on: loop)
            let (closing, closingPeer) = try makeDatagramPair(on: loop)
            let (handled, handledPeer) = try makeDatagramPair(on: loop)
            let (paused, pausedPeer) = try makeDatagramPair(on: loop)
            let named = try loop.bindDatagram(to: name)
            let notes = [DatagramNotes(), DatagramNotes()]
            try handled.start(notes[0])
            try paused.start(notes[1])
            try paused.pauseReading()
            writing.writeHighWaterMark = 0
            tasks.append(
                loop.spawn { ends.append("read: \((await thrown { _ = try await reading.receive() })!)") })
            tasks.append(
                loop.spawn {
                    _ = try writing.fill()
                    ends.append("write: \((await thrown { try await writing.flush() })!)")
                })
            tasks.append(
                loop.spawn {
                    _ = try closing.fill()
                    await closing.close()
                    ends.append("close: \(closing.isClosed)")
                })
            try loop.watched { for _ in 0..<50 { try loop.runOnce(.noWait) } }
            #expect(ends.all == [])
            try loop.close()
            #expect(notes.map(\.events) == [["lost"], ["lost"]])
            #expect(handled.isClosed && paused.isClosed && named.isClosed)
            withExtendedLifetime((readingPeer, writingPeer, closingPeer, handledPeer, pausedPeer)) {}
            return tasks
        }
        for task in tasks { try await task.value }
        #expect(Set(ends.all) == ["read: \(LoopError.closed)", "write: \(LoopError.closed)", "close: true"])
        // Its descriptor is closed as well.
        _ = try DatagramPeer(at: name)
    }

    @Test("D1 a socket that is dropped is closed, and a queue it has goes out first", arguments: LoopKind.available)
    func dropped(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let name = try DatagramAddress.unusedName()
            var socket: DatagramSocket? = try loop.bindDatagram(to: name)
            #expect(await thrown { _ = try loop.bindDatagram(to: name) }.errno == EADDRINUSE)
            weak let weakly = socket
            socket = nil
            #expect(weakly == nil)
            socket = try loop.bindDatagram(to: name)
            // Also on another thread, and also after a receive that was cancelled.
            let waiting = loop.spawn { [socket] in _ = try await socket?.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            waiting.cancel()
            #expect(await thrown { try await waiting.value } == .cancelled(operation: "receive"))
            let held = HeldSocket(socket.take()!)
            await Task.detached { held.letGo() }.value
            try await until("the socket is closed", on: loop) { (try? DatagramPeer(at: name)) != nil }

            var (writing, peer): (DatagramSocket?, DatagramPeer) = try makeDatagramPair(on: loop)
            let count = try writing!.fill()
            writing = nil
            for number in 0..<count {
                let bytes = try await onThread { try peer.receive() }
                #expect(bytes == [UInt8(truncatingIfNeeded: number)])
                try await loop.sleep(for: .zero)
            }
            try await until("nothing is under way", on: loop) { loop.waitingOperations == 0 }
            #expect(await thrown { try peer.send([1]) } == nil)
        }
    }

    // MARK: D2

    @Test("D2 empty datagrams are sent and received, and are no end", arguments: LoopKind.available)
    func empty(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let server = try loop.bindDatagram(to: DatagramAddress(host, 0))
            let client = try loop.connectDatagram(to: server.localAddress)
            for bytes: [UInt8] in [[], [1], [], []] {
                try await client.send(bytes)
                let datagram = try await server.receive()
                #expect(datagram.bytes == bytes && datagram.address == client.localAddress && !datagram.isTruncated)
            }
            let (near, peer) = try makeDatagramPair(on: loop)
            let notes = DatagramNotes()
            try near.start(notes)
            try peer.send([])
            try peer.send([5])
            try await until("both were told", on: loop) { notes.datagrams.count == 2 }
            #expect(notes.datagrams == [[], [5]])
            try await near.send([])
            #expect(try peer.receive() == [])
        }
    }

    @Test(
        "D2 a connected socket sends to its peer alone, an unconnected one only where it is told",
        arguments: LoopKind.available)
    func destinations(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let (peer, other) = (try DatagramPeer(host: host), try DatagramPeer(host: host))
            let socket = try loop.connectDatagram(to: peer.address)
            try await socket.send([1], to: peer.address)
            try await socket.send([2], to: #require(peer.address.socketAddress))
            let error = await thrown { try await socket.send([3], to: other.address) }
            #expect(error == .connectedElsewhere(to: "\(peer.address)", not: "\(other.address)"))
            for address in [peer.address, other.address] {
                #expect(String(describing: error).contains("\(address)"))
            }
            try await socket.send([4])
            #expect(try [peer.receive(), peer.receive(), peer.receive()] == [[1], [2], [4]])
            #expect(other.isEmpty)
            let bound = try loop.bindDatagram(to: DatagramAddress(host, 0))
            #expect(await thrown { try await bound.send([1]) }.errno == EDESTADDRREQ)
            try await bound.send([5], to: other.address)
            #expect(try other.receive() == [5])
        }
    }

    @Test(
        "D2 what the kernel has no room for is queued, and goes out in order, empty ones too",
        arguments: LoopKind.available)
    func queue(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            var expected = (0..<(try socket.fill())).map { [UInt8(truncatingIfNeeded: $0)] }
            // More than one call takes, of all sizes, so that the queue's memory wraps and grows.
            for number in 0..<200 {
                let bytes = pattern(number * 37 % 1500, from: number)
                try socket.sendNow(bytes)
                expected.append(bytes)
            }
            let flush = loop.spawn { try await socket.flush() }
            var index = 0
            while index < expected.count {
                let received = try await onThread { try peer.receive() }
                #expect(difference(received, expected[index]) == nil, "datagram \(index)")
                if index % 40 == 0 && index < 200 {
                    let bytes = pattern(index + 1, from: index)
                    try socket.sendNow(bytes)
                    expected.append(bytes)
                }
                index += 1
            }
            try await flush.value
            #expect(socket.unsentByteCount == 0)
            try await until("nothing is under way", on: loop) { loop.waitingOperations == 0 }
        }
    }

    /// A poll says that a socket which is not connected has room, whatever the receiver has.
    @Test("D2 a full receiver of a Unix socket that is not connected keeps no loop busy", arguments: LoopKind.available)
    func fullReceiver(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let peer = try DatagramPeer(at: .unusedName())
            let socket = try loop.bindDatagram(to: .unusedName())
            var count = 0
            while socket.unsentByteCount == 0 && count < 100_000 {
                try socket.sendNow([UInt8(truncatingIfNeeded: count)], to: peer.address)
                count += 1
            }
            let before = loop.statistics.passes
            try await loop.sleep(for: .milliseconds(100))
            #expect(loop.statistics.passes - before < 50)
            for number in 0..<count {
                let bytes = try await onThread { try peer.receive() }
                #expect(bytes == [UInt8(truncatingIfNeeded: number)])
            }
            try await until("all is out", on: loop) { socket.unsentByteCount == 0 }
            try await socket.send([7], to: peer.address)
            #expect(try peer.receive() == [7])
        }
    }

    @Test("D2 a send that is cancelled while it waits for room has queued its datagram", arguments: LoopKind.available)
    func cancelledSend(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let count = try socket.fill()
            socket.writeHighWaterMark = 9
            socket.writeLowWaterMark = 0
            let send = loop.spawn { try await socket.send([77]) }
            let other = loop.spawn { try await socket.send([78]) }
            try await until("both are queued", on: loop) { socket.unsentByteCount == 27 }
            send.cancel()
            #expect(await thrown { try await send.value } == .cancelled(operation: "send"))
            var received: [[UInt8]] = []
            for _ in 0..<(count + 2) {
                received.append(try await onThread { try peer.receive() })
                try await loop.sleep(for: .zero)
            }
            #expect(received.suffix(2) == [[77], [78]])
            try await other.value
        }
    }

    @Test("D2 close sends what is queued, abort drops it", arguments: LoopKind.available, [false, true])
    func closing(kind: LoopKind, abort: Bool) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let notes = DatagramNotes()
            try socket.start(notes)
            let count = try socket.fill()
            let waiting = loop.spawn { await thrown { try await socket.flush() } }
            try await until("the queue is polled for", on: loop) { loop.waitingOperations == 2 }
            if abort { socket.abort() } else { socket.closeSoon() }
            #expect(notes.events == [], "never within the call")
            #expect(await thrown { try await socket.send([1]) } == .connectionClosed(operation: "send"))
            if !abort {
                for _ in 0..<20 { try await loop.sleep(for: .zero) }
                #expect(!socket.isClosed)
            }
            for number in 0..<(abort ? count - 1 : count) {
                let bytes = try await onThread { try peer.receive() }
                #expect(bytes == [UInt8(truncatingIfNeeded: number)])
            }
            try await until("the socket is closed", on: loop) { socket.isClosed }
            #expect(notes.events == ["lost"])
            #expect(try await waiting.value == (abort ? .connectionClosed(operation: "flush") : nil))
            #expect(peer.isEmpty || !abort)
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("D2 a handler that answers each datagram allocates nothing for it", arguments: LoopKind.available)
    func allocations(kind: LoopKind) async throws {
        if !shim_allocation_faults_possible() { return }
        try await onThread {
            let loop = try kind.makeLoop(options: LoopOptions())
            defer { try? loop.close() }
            let (near, far) = try makeConnectedPair(on: loop)
            let handler = Counting(loop)
            try near.start(handler)
            try far.start(handler)
            for _ in 0..<40 { try near.sendNow([1, 2, 3]) }
            try loop.runWatched()
            #expect(handler.count >= 3000)
            // Some forty in each pass. What a pass allocates in a debug build is not the datagrams'.
            #expect(handler.passes < 400)
            #expect(UInt64(handler.allocations) <= handler.passes)
        }
    }

    // MARK: D3

    @Test("D3 F59 that nobody listens is told once, and the socket lives on", arguments: LoopKind.available)
    func refusedOnce(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let socket = try loop.connectDatagram(to: address)
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            try await socket.send([1])
            #expect(await thrown { _ = try await waiting.value } == refused)
            let peer = try DatagramPeer(at: address)
            try peer.send([2], to: socket.localAddress)
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [2])
            try await socket.send([3])
            #expect(try peer.receive() == [3])
        }
    }

    /// The kernel tells the error of the first datagram to the second send.
    @Test("D3 F59 an error that a later send meets costs no datagram", arguments: LoopKind.available)
    func errorMetBySend(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let socket = try loop.connectDatagram(to: address)
            try await socket.send([1])
            try await until("the error is there", on: loop) { pendingError(socket.descriptor) }
            let peer = try DatagramPeer(at: address)
            try await socket.send([2])
            #expect(try peer.receive() == [2])
            #expect(await thrown { _ = try await socket.receive() } == refused)
            try peer.send([3], to: socket.localAddress)
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [3])
        }
    }

    @Test("D3 F59 errors go to onError where there is one, and a receive waits on", arguments: LoopKind.available)
    func onError(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let socket = try loop.connectDatagram(to: address)
            let errors = Log<LoopError>()
            socket.onError = { errors.append($0) }
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            try await socket.send([1])
            try await until("the error was told", on: loop) { errors.all.count == 1 }
            let peer = try DatagramPeer(at: address)
            try peer.send([2], to: socket.localAddress)
            let datagram = try await waiting.value
            #expect(datagram.bytes == [2])
            // And where nobody receives.
            peer.close()
            try await socket.send([3])
            try await until("the error is there", on: loop) { pendingError(socket.descriptor) }
            try await socket.send([4])
            try await until("it was told as well", on: loop) { errors.all.count == 2 }
            #expect(errors.all == [refused, refused])
        }
    }

    @Test("D3 F59 a handler is told, and goes on receiving", arguments: LoopKind.available)
    func handlerErrors(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let socket = try loop.connectDatagram(to: address)
            let notes = DatagramNotes()
            try socket.start(notes)
            // As often as it is asked for, and not within the send.
            for count in 1...3 {
                try socket.sendNow([1])
                try await until("the error was told", on: loop) { notes.errors.count == count }
            }
            #expect(notes.errors == [refused, refused, refused])
            let peer = try DatagramPeer(at: address)
            try peer.send([2], to: socket.localAddress)
            try await until("the datagram was told", on: loop) { notes.datagrams == [[2]] }
            #expect(notes.events == ["error", "error", "error", "received"])
        }
    }

    /// asyncio on Windows ceased to receive (gh-91227).
    @Test("D3 F59 an unconnected socket still receives after it sent to a closed port", arguments: LoopKind.available)
    func unconnected(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let closed = try DatagramPeer(host: host)
            let address = closed.address
            closed.close()
            let peer = try DatagramPeer(host: host)
            let socket = try loop.bindDatagram(to: DatagramAddress(host, 0))
            for _ in 0..<3 { try await socket.send([1], to: address) }
            try peer.send([2], to: socket.localAddress)
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [2])
        }
    }

    @Test(
        "D3 a queued datagram that cannot be sent is told, and those behind it are sent", arguments: LoopKind.available)
    func errorInQueue(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (peer, gone) = (try DatagramPeer(at: .unusedName()), try DatagramPeer(at: .unusedName()))
            let nowhere = gone.address
            gone.close()
            let socket = try loop.bindDatagram(to: .unusedName())
            let first = await thrown { try await socket.send([1], to: nowhere) }
            #expect(first == .io(IOError(errno: ECONNREFUSED, operation: "send")))
            var count = 0
            while socket.unsentByteCount == 0 && count < 100_000 {
                try socket.sendNow([1], to: peer.address)
                count += 1
            }
            try socket.sendNow([2], to: nowhere)
            try socket.sendNow([3], to: peer.address)
            let receive = loop.spawn { await thrown { _ = try await socket.receive() } }
            for number in 0...count {
                let bytes = try await onThread { try peer.receive() }
                #expect(bytes == [number < count ? 1 : 3])
            }
            #expect(try await receive.value == refused)
            #expect(socket.unsentByteCount == 0)
        }
    }

    // MARK: D4

    @Test("D4 each queued datagram counts eight bytes more than it has, until it is out", arguments: LoopKind.available)
    func accounting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let count = try socket.fill()
            #expect(socket.unsentByteCount == 9)
            for _ in 0..<5 { try socket.sendNow([]) }
            #expect(socket.unsentByteCount == 9 + 5 * 8)
            try socket.sendNow([1, 2, 3])
            #expect(socket.unsentByteCount == 9 + 5 * 8 + 11)
            for _ in 0..<(count + 6) { _ = try await onThread { try peer.receive() } }
            try await socket.flush()
            #expect(socket.unsentByteCount == 0)
        }
    }

    @Test(
        "D4 a handler is told to pause above the high mark and to resume at the low one, once each",
        arguments: LoopKind.available)
    func marks(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let notes = DatagramNotes()
            try socket.start(notes)
            var unsentAtResume = -1
            notes.onResume = { unsentAtResume = $0.unsentByteCount }
            socket.writeHighWaterMark = 40
            socket.writeLowWaterMark = 16
            let count = try socket.fill()
            // 9, 17, 25, 33: empty ones count.
            for _ in 0..<3 { try socket.sendNow([]) }
            #expect(notes.events == [])
            for _ in 0..<3 { try socket.sendNow([]) }
            #expect(notes.events == ["pause"])
            for _ in 0..<(count + 6) { _ = try await onThread { try peer.receive() } }
            try await socket.flush()
            #expect(notes.events == ["pause", "resume"])
            #expect((0...16).contains(unsentAtResume))
            // And again.
            let again = try socket.fill()
            for _ in 0..<5 { try socket.sendNow([]) }
            #expect(notes.events == ["pause", "resume", "pause"])
            for _ in 0..<(again + 5) { _ = try await onThread { try peer.receive() } }
            try await socket.flush()
            #expect(notes.events == ["pause", "resume", "pause", "resume"])
        }
    }

    @Test("D4 a send waits above the high mark, and no longer than to the low one", arguments: LoopKind.available)
    func waitingSend(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let count = try socket.fill()
            socket.writeHighWaterMark = 17
            socket.writeLowWaterMark = 9
            try await socket.send([])  // 17: not above
            let log = Log<Int>()
            let send = loop.spawn {
                try await socket.send([])
                log.append(socket.unsentByteCount)
            }
            try await until("it is queued", on: loop) { socket.unsentByteCount == 25 }
            for _ in 0..<20 { try await loop.sleep(for: .zero) }
            #expect(log.all == [])
            var left = count + 2
            while log.all.isEmpty && left > 0 {
                _ = try await onThread { try peer.receive() }
                left -= 1
                try await loop.sleep(for: .milliseconds(1))
            }
            try await send.value
            #expect(log.all.allSatisfy { $0 <= 9 })
            for _ in 0..<left { _ = try await onThread { try peer.receive() } }
            try await socket.flush()
        }
    }

    // MARK: D5

    @Test("D4 marks below zero are zero", arguments: LoopKind.available)
    func negativeMarks(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let socket = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            for mark in [-1, .min] {
                socket.writeHighWaterMark = mark
                socket.writeLowWaterMark = mark
                try await socket.send([1], to: socket.localAddress)
                #expect(try await socket.receive().bytes == [1])
            }
            await socket.close()
        }
    }

    @Test("D5 a paused handler is told nothing, and everything in order once it resumes", arguments: LoopKind.available)
    func pause(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (socket, peer) = try makeDatagramPair(on: loop)
            let notes = DatagramNotes()
            notes.onDatagram = { [unowned notes] in if notes.datagrams.count == 2 { try $0.pauseReading() } }
            try socket.start(notes)
            try await until("the socket is polled", on: loop) { loop.waitingOperations == 1 }
            // The batch is received at once, and the second of it pauses.
            for number: UInt8 in 1...5 { try peer.send([number]) }
            try await until("two were told", on: loop) { notes.datagrams.count >= 2 }
            try await until("nothing is under way", on: loop) { loop.waitingOperations == 0 }
            try peer.send([6])
            for _ in 0..<20 { try await loop.sleep(for: .zero) }
            #expect(notes.datagrams == [[1], [2]])
            try socket.resumeReading()
            #expect(notes.datagrams.count == 2, "never within the call")
            try await until("all were told", on: loop) { notes.datagrams.count == 6 }
            #expect(notes.datagrams == [[1], [2], [3], [4], [5], [6]])
            // While a poll is under way, and back at once.
            try await until("the socket is polled", on: loop) { loop.waitingOperations == 1 }
            try socket.pauseReading()
            try peer.send([7])
            for _ in 0..<20 { try await loop.sleep(for: .zero) }
            #expect(notes.datagrams.count == 6)
            try socket.resumeReading()
            try socket.pauseReading()
            try socket.resumeReading()
            try await until("it was told", on: loop) { notes.datagrams.count == 7 }
            #expect(notes.events == Array(repeating: "received", count: 7))
        }
    }
}

private let hasIPv6: Bool = {
    guard !isSimulated, let address = try? DatagramAddress("::1", 0) else { return false }
    return (try? DatagramPeer(at: address)) != nil
}()

/// Whether the kernel keeps an error for the next call, which this call leaves there.
private func pendingError(_ descriptor: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: 0, revents: 0)
    return poll(&request, 1, 0) == 1 && request.revents & Int16(POLLERR) != 0
}

private func makeConnectedPair(on loop: any Loop) throws -> (DatagramSocket, DatagramSocket) {
    let far = try DatagramPeer(host: "127.0.0.1")
    let near = try loop.connectDatagram(to: far.address, from: DatagramAddress("127.0.0.1", 0))
    let copy = try check(dup(far.descriptor), "dup")
    try check(near.localAddress.withSockaddr { connect(copy, $0, $1) }, "connect")
    return (near, try DatagramSocket(adopting: copy, on: loop))
}

/// Sends everything back, and counts what is allocated from the thousandth datagram to the three thousandth.
private final class Counting: DatagramHandler {
    private unowned let loop: any Loop
    var count = 0
    var allocations: UInt32 = 0
    var passes: UInt64 = 0
    init(_ loop: any Loop) { self.loop = loop }

    func datagramReceived(
        _ bytes: RawSpan, from address: DatagramAddress, isTruncated: Bool, on socket: DatagramSocket
    ) {
        count += 1
        if count == 1000 {
            passes = loop.statistics.passes
            shim_arm(nil, 0)
        }
        if count == 3000 {
            allocations = shim_calls(SHIM_ALLOCATE)
            passes = loop.statistics.passes - passes
            shim_disarm()
            loop.stop()
        }
        if count < 4000 { try? socket.send(copying: bytes, to: address) }
    }
}

/// The last reference to a socket.
private final class HeldSocket: @unchecked Sendable {
    private var value: DatagramSocket?
    init(_ value: DatagramSocket) { self.value = value }
    func letGo() { value = nil }
}
