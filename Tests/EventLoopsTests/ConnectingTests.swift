// SPDX-License-Identifier: Apache-2.0
//
// ConnectingTests.swift: connecting, and adopting a descriptor.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct ConnectingTests {
    @Test("K4 connect: both ends know each other, and bytes go both ways", arguments: LoopKind.available)
    func connect(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            async let server = {
                let connection = try await listener.accept(); return connection
            }()
            let client = try await Connection.connect(to: "127.0.0.1", port: listener.address.port, on: loop)
            let accepted = try await server
            #expect(client.remoteAddress == listener.address)
            #expect(accepted.remoteAddress == client.localAddress)
            #expect(accepted.localAddress == client.remoteAddress)
            var noDelay: Int32 = 0
            var size = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(client.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &noDelay, &size)
            #expect(noDelay != 0)
            let echo = loop.spawn { try await accepted.echo() }
            for round in 0..<50 {
                try await client.write(pattern(100 + round))
                #expect(try await client.read(atLeast: 100 + round) == pattern(100 + round))
            }
            try client.finishWriting()
            #expect(try await client.read() == nil)
            try await echo.value
            await client.close()
        }
    }

    @Test("K4 a connection that is refused: the error names the address", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let port = try Listener(on: loop, address: host, port: 0).address.port
            let refused = LoopError.io(IOError(errno: ECONNREFUSED, operation: "connect to \(host):\(port)"))
            for _ in 0..<5 {
                await #expect(throws: refused) {
                    _ = try await Connection.connect(to: host, port: port, on: loop)
                }
            }
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.waitingOperations == 0)
        }
    }

    /// Knows where a test's servers are.
    private struct Places: Resolver {
        let places: [SocketAddress]
        func resolve(host: String, port: UInt16, on loop: any Loop) -> [SocketAddress] {
            host == "example.test" ? places : []
        }
    }

    @Test("C1 a name is looked up, and its addresses are tried in turn", arguments: LoopKind.available)
    func byName(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            // Bound, and not listening: it refuses.
            let refusing = try Server(on: loop, endpoints: [SocketAddress("127.0.0.1", 0)])
            loop.resolver = Places(places: refusing.addresses + [listener.address])
            let connection = try await Connection.connect(to: "example.test", port: 1, on: loop)
            #expect(connection.remoteAddress == listener.address)
            connection.abort()
            let unknown = await thrown { _ = try await Connection.connect(to: "nobody.test", port: 1, on: loop) }
            let reason = "the resolver found no address"
            #expect(unknown == .resolving(ResolvingError(host: "nobody.test", reason: reason)))
            listener.close()
            try await until("it refuses as well", on: loop) { loop.waitingOperations == 0 }
            let refused = await thrown { _ = try await Connection.connect(to: "example.test", port: 1, on: loop) }
            guard case .connectFailed(let attempts) = refused else { return #expect(refused == .closed) }
            #expect(attempts.map(\.error.errno) == [ECONNREFUSED, ECONNREFUSED])
            refusing.close()
        }
    }

    /// The listener's queue is full, so the kernel leaves some of the requests without an answer.
    @Test(
        "F56 C8 a connect that is cancelled while nobody answers ends, and its descriptor with it",
        arguments: LoopKind.available)
    func cancelConnect(kind: LoopKind) async throws {
        let (descriptor, port) = try makeFullListener()
        defer { close(descriptor) }
        try await onLoop(kind) { loop in
            let attempts = (0..<4).map { _ in
                loop.spawn { _ = try await Connection.connect(to: "127.0.0.1", port: port, on: loop) }
            }
            try await until("some are answered, some wait", on: loop) { (1...3).contains(loop.waitingOperations) }
            for attempt in attempts { attempt.cancel() }
            var cancelled = 0
            for attempt in attempts {
                let error = await thrown { try await attempt.value }
                if error == .cancelled(operation: "connect") { cancelled += 1 } else { #expect(error == nil) }
            }
            #expect(cancelled > 0)
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("E8 a connect that waits ends with the loop", arguments: LoopKind.available)
    func connectAtLoopClose(kind: LoopKind) async throws {
        let (descriptor, port) = try makeFullListener()
        defer { close(descriptor) }
        let attempts = try await onLoop(kind) { loop in
            let attempts = (0..<4).map { _ in
                loop.spawn { _ = try await Connection.connect(to: "127.0.0.1", port: port, on: loop) }
            }
            try await until("some are answered, some wait", on: loop) { (1...3).contains(loop.waitingOperations) }
            return attempts
        }
        var ended = 0
        for attempt in attempts {
            let error = await thrown { try await attempt.value }
            if error == .connectionClosed(operation: "connect") { ended += 1 } else { #expect(error == nil) }
        }
        #expect(ended > 0)
    }

    @Test("C10 a socket can be taken over; what is none stays its owner's", arguments: LoopKind.available)
    func adopt(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (descriptor, peer) = try Peer.pair()
            let connection = try Connection(adopting: descriptor, on: loop)
            #expect(connection.descriptor == descriptor)
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
            let twice = #expect(throws: LoopError.self) { _ = try Connection(adopting: descriptor, on: loop) }
            #expect(twice == .ownedByTransport(descriptor: descriptor))
            try await connection.write([1])
            try await connection.flush()
            #expect(try peer.receive() == [1])

            let file = try check(open("/dev/null", O_RDONLY | O_CLOEXEC), "open")
            defer { close(file) }
            let datagram = try check(socket(AF_INET, datagramType, 0), "socket")
            defer { close(datagram) }
            #expect(await thrown { _ = try Connection(adopting: file, on: loop) }.errno == ENOTSOCK)
            #expect(await thrown { _ = try Connection(adopting: datagram, on: loop) }.errno == EPROTOTYPE)
            #expect(await thrown { _ = try Connection(adopting: -1, on: loop) }.errno == EBADF)
            #expect(fcntl(file, F_GETFD) >= 0)
            #expect(fcntl(datagram, F_GETFD) >= 0)
            #expect(loop.statistics.connections == 1)
        }
    }
}
