// SPDX-License-Identifier: Apache-2.0
//
// ListenerTests.swift: listening, accepting, and what becomes of connections that nobody accepts.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct ListenerTests {
    @Test(
        "K5 an accepted descriptor does not block, does not survive exec, and sends at once",
        arguments: LoopKind.available)
    func acceptedDescriptor(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop)
            #expect(fcntl(connection.descriptor, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(connection.descriptor, F_GETFD) & FD_CLOEXEC != 0)
            var noDelay: Int32 = 0
            var size = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(connection.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &noDelay, &size)
            #expect(noDelay != 0)
            #expect(connection.localAddress?.host == "127.0.0.1")
            #expect(connection.remoteAddress?.host == "127.0.0.1")
            #expect(connection.remoteAddress?.port != connection.localAddress?.port)
            withExtendedLifetime(peer) {}
        }
    }

    @Test("V1 port 0 gives a port of its own, over IPv4 and IPv6", arguments: LoopKind.available)
    func ports(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let first = try Listener(on: loop, port: 0)
            let second = try Listener(on: loop, port: 0)
            #expect(first.address.port != 0)
            #expect(second.address.port != 0)
            #expect(first.address != second.address)
            #expect(first.address.host == "127.0.0.1")
            guard let third = try listenOverIPv6(on: loop) else { return }
            #expect(third.address.description == "[::1]:\(third.address.port)")
            async let accepted = third.accept()
            let connection = try await Connection.connect(to: "::1", port: third.address.port, on: loop)
            #expect(try await accepted.localAddress == connection.remoteAddress)
        }
    }

    @Test("V3 an address that cannot be had is named in the error", arguments: LoopKind.available)
    func addressErrors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let taken = LoopError.io(IOError(errno: EADDRINUSE, operation: "listen on \(listener.address)"))
            #expect(throws: taken) { _ = try Listener(on: loop, port: listener.address.port) }
            // 192.0.2.0/24 is for documentation: nobody's.
            let foreign = LoopError.io(IOError(errno: EADDRNOTAVAIL, operation: "listen on 192.0.2.1:0"))
            #expect(throws: foreign) { _ = try Listener(on: loop, address: "192.0.2.1", port: 0) }
            #expect(throws: LoopError.invalidAddress("localhost")) {
                _ = try Listener(on: loop, address: "localhost", port: 0)
            }
        }
    }

    @Test("V2 several listeners share a port if they all say so", arguments: LoopKind.available)
    func reusePort(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var options = ListenOptions()
            options.reusePort = true
            let first = try Listener(on: loop, port: 0, options: options)
            let second = try Listener(on: loop, port: first.address.port, options: options)
            #expect(first.address == second.address)
            let accepted = Log<Connection>()
            try first.start { accepted.append($0) }
            try second.start { accepted.append($0) }
            let peers = try (0..<20).map { _ in try Peer(to: first.address.port) }
            try await until("all are accepted", on: loop) { accepted.all.count == peers.count }
        }
    }

    /// Whoever waits is told by an error; an iteration just ends.
    @Test("V7 close ends the accept that waits, and the iteration", arguments: LoopKind.available)
    func closeEndsWaits(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let first = try Listener(on: loop, port: 0)
            let accept = loop.spawn { _ = try await first.accept() }
            let second = try Listener(on: loop, port: 0)
            let iteration = loop.spawn {
                var count = 0
                for try await _ in second { count += 1 }
                return count
            }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            first.close()
            first.close()
            second.close()
            await #expect(throws: LoopError.connectionClosed(operation: "accept")) { try await accept.value }
            #expect(try await iteration.value == 0)
            await #expect(throws: LoopError.connectionClosed(operation: "accept")) { _ = try await first.accept() }
        }
    }

    @Test("V7 close refuses new connections at once and leaves the accepted ones", arguments: LoopKind.available)
    func closeKeepsConnections(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, address: host, port: 0)
            let peer = try Peer(to: listener.address.port, at: host)
            let connection = try await listener.accept()
            listener.close()
            #expect(throws: IOError(errno: ECONNREFUSED, operation: "peer: connect")) {
                _ = try Peer(to: listener.address.port, at: host)
            }
            try peer.send([1, 2, 3])
            #expect(try await connection.read(atLeast: 3) == [1, 2, 3])
            try await connection.write([4])
            try await connection.flush()
            #expect(try peer.receive() == [4])
            await connection.close()
        }
    }

    @Test("V7 close from another thread", arguments: LoopKind.available)
    func closeElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            async let count = {
                var count = 0; for try await _ in listener { count += 1 }; return count
            }()
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            try await onThread { listener.close() }
            #expect(try await count == 0)
        }
    }

    @Test("V7 a listener that is dropped is closed", arguments: LoopKind.available)
    func dropped(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let port = try Listener(on: loop, address: host, port: 0).address.port
            #expect(throws: IOError(errno: ECONNREFUSED, operation: "peer: connect")) {
                _ = try Peer(to: port, at: host)
            }
        }
    }

    @Test("K8 one accept at a time; the first is not disturbed", arguments: LoopKind.available)
    func busy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let first = loop.spawn { try await listener.accept() }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            await #expect(throws: LoopError.busy(operation: "accept")) { _ = try await listener.accept() }
            #expect(throws: LoopError.busy(operation: "start")) { try listener.start { _ in } }
            let peer = try Peer(to: listener.address.port)
            let connection = try await first.value
            try await connection.write([7])
            try await connection.flush()
            #expect(try peer.receive() == [7])
        }
    }

    /// A task that was cancelled before it asked is refused for being second. The first has nothing to do with that.
    @Test("K8 a second accept that is cancelled does not cancel the first", arguments: LoopKind.available)
    func cancelledSecond(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let first = loop.spawn { try await listener.accept() }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            let second = loop.spawn { _ = try await listener.accept() }
            second.cancel()
            #expect(await thrown { try await second.value } != nil)
            for _ in 0..<3 { try await loop.sleep(for: .microseconds(100)) }
            let peer = try Peer(to: listener.address.port)
            let error = await thrown { _ = try await first.value }
            #expect(error == nil)
            withExtendedLifetime(peer) {}
        }
    }

    /// Connections that come while nobody accepts wait; a cancel takes none with it.
    @Test("N7 an accept that is cancelled loses no connection", arguments: LoopKind.available)
    func cancelAccept(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            for round in 0..<100 {
                let accept = loop.spawn { try await listener.accept() }
                if round.isMultiple(of: 3) { await Task.yield() }
                let peer: Peer
                if round.isMultiple(of: 2) {
                    accept.cancel()
                    peer = try Peer(to: listener.address.port)
                } else {
                    peer = try Peer(to: listener.address.port)
                    accept.cancel()
                }
                let connection: Connection
                do {
                    connection = try await accept.value
                } catch LoopError.cancelled(operation: "accept") {
                    connection = try await listener.accept()
                }
                try peer.send([UInt8(round)])
                #expect(try await connection.read(atLeast: 1) == [UInt8(round)])
                await connection.close()
            }
        }
    }

    @Test("V7 a listener with a closure: each connection once, then silence", arguments: LoopKind.available)
    func closure(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, address: host, port: 0)
            let thread = threadID()
            let accepted = Log<Connection>()
            try listener.start { connection in
                #expect(threadID() == thread)
                accepted.append(connection)
                if accepted.all.count == 50 { listener.close() }
            }
            await #expect(throws: LoopError.busy(operation: "accept")) { _ = try await listener.accept() }
            let peers = try (0..<50).map { _ in try Peer(to: listener.address.port, at: host) }
            try await until("all are accepted", on: loop) { accepted.all.count == 50 }
            #expect(Set(accepted.all.map(\.descriptor)).count == 50)
            // Each answers to one of the peers.
            for connection in accepted.all { try await connection.write([1]); await connection.close() }
            for peer in peers { #expect(try peer.receiveToEnd() == [1]) }
            #expect(throws: IOError(errno: ECONNREFUSED, operation: "peer: connect")) {
                _ = try Peer(to: listener.address.port, at: host)
            }
        }
    }

    @Test("K5 connections keep waiting while nobody accepts, however many", arguments: LoopKind.available)
    func pending(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let first = try Peer(to: listener.address.port)
            _ = try await listener.accept()
            // More than a listener takes in advance.
            let peers = try (0..<150).map { _ in try Peer(to: listener.address.port) }
            for (index, peer) in peers.enumerated() { try peer.send([UInt8(index)]) }
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(100)) }
            var seen: [UInt8] = []
            for _ in peers {
                let connection = try await listener.accept()
                seen += try await connection.read(atLeast: 1)
                await connection.close()
            }
            #expect(seen == (0..<150).map { UInt8($0) })
            for peer in peers { #expect(peer.receiveEnd() == 0) }
            withExtendedLifetime(first) {}
        }
    }

    @Test("E9 nothing can be listened to or taken over on a closed loop", arguments: LoopKind.available)
    func closedLoop(kind: LoopKind) async throws {
        let loop = try kind.makeLoop()
        try loop.close()
        #expect(throws: LoopError.closed) { _ = try Listener(on: loop, port: 0) }
        let (near, peer) = try Peer.pair()
        defer { close(near) }
        #expect(throws: LoopError.closed) { _ = try Connection(adopting: near, on: loop) }
        #expect(fcntl(near, F_GETFD) >= 0)
        withExtendedLifetime(peer) {}
    }

    @Test("E8 a loop that closes ends accepts and lets go of started listeners", arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        let host = ownHost(kind)
        final class Witness: Sendable {}
        weak var weakWitness: Witness?
        let (accept, port) = try await onThread {
            let loop = try kind.makeLoop()
            let waiting = try Listener(on: loop, address: host, port: 0)
            let started = try Listener(on: loop, address: host, port: 0)
            let witness = Witness()
            weakWitness = witness
            try started.start { [witness] _ in withExtendedLifetime(witness) {} }
            let accept = loop.spawn { _ = try await waiting.accept() }
            let armed = { loop.waitingOperations == 2 }
            while !armed() { try loop.runOnce(.noWait) }
            try loop.close()
            return (accept, started.address.port)
        }
        await #expect(throws: LoopError.connectionClosed(operation: "accept")) { try await accept.value }
        #expect(weakWitness == nil)
        #expect(throws: IOError(errno: ECONNREFUSED, operation: "peer: connect")) { _ = try Peer(to: port, at: host) }
    }

    @Test("F46 X7 accepting belongs on the loop's thread", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            await Task.detached {
                await #expect(throws: LoopError.wrongThread(operation: "accept")) { _ = try await listener.accept() }
                #expect(throws: LoopError.wrongThread(operation: "start")) { try listener.start { _ in } }
                #expect(throws: LoopError.wrongThread(operation: "listen")) { _ = try Listener(on: loop, port: 0) }
            }.value
        }
    }
}

/// `nil` where this machine has no IPv6.
private func listenOverIPv6(on loop: any Loop) throws -> Listener? {
    do {
        return try Listener(on: loop, address: "::1", port: 0)
    } catch {
        if [EADDRNOTAVAIL, EAFNOSUPPORT].contains(Optional(error).errno) { return nil }
        throw error
    }
}
