// SPDX-License-Identifier: Apache-2.0
//
// SocketConnectingTests.swift: sockets that the caller connects, and those that accept; how a connection is asked for.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct SocketConnectingTests {
    private static func makeListening(on loop: any Loop, _ host: String = "127.0.0.1") throws -> (Socket, SocketAddress)
    {
        let any = try SocketAddress(host, 0)
        let socket = try Socket(for: any, on: loop)
        try socket.bind(to: any)
        try socket.listen()
        return (socket, try #require(socket.localAddress))
    }

    @Test("K4 K5 both ends know each other, do not block, and bytes go both ways", arguments: LoopKind.available)
    func connect(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (listening, address) = try Self.makeListening(on: loop)
            let accepting = loop.spawn { try await listening.accept() }
            let client = try Socket(for: address, on: loop)
            try await client.connect(to: address)
            let (server, peerAddress) = try await accepting.value
            #expect(client.remoteAddress == address)
            #expect(server.localAddress == address)
            #expect(peerAddress == client.localAddress)
            #expect(fcntl(server.descriptor, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(server.descriptor, F_GETFD) & FD_CLOEXEC != 0)
            try await client.sendAll([1, 2, 3])
            let there = try await server.receive(max: 10)
            #expect(there == [1, 2, 3])
            try await server.sendAll([4])
            let back = try await client.receive(max: 10)
            #expect(back == [4])
        }
    }

    @Test("K4 F55 a connect that is refused names the address", arguments: LoopKind.available)
    func refused(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let host = ownHost(kind)
            let (bound, address) = try Self.makeListening(on: loop, host)
            bound.close()
            for _ in 0..<3 {
                let socket = try Socket(for: address, on: loop)
                let error = await thrown { try await socket.connect(to: address) }
                #expect(error == .io(IOError(errno: ECONNREFUSED, operation: "connect to \(address)")))
            }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test(
        "K4 F56 a connect that was cancelled can be asked again", .realKernel("a connect that is asked twice"),
        arguments: LoopKind.available)
    func again(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let deaf = try Deaf()
            let (listening, address) = try Self.makeListening(on: loop)
            let socket = try Socket(for: address, on: loop)
            for _ in 0..<3 {
                let connecting = loop.spawn { try await socket.connect(to: deaf.address) }
                try await until("it waits", on: loop) { loop.waitingOperations == 1 }
                connecting.cancel()
                #expect(await thrown { try await connecting.value } == .cancelled(operation: "connect"))
            }
            #expect(await thrown { try await socket.connect(to: address) }.errno == EALREADY)
            socket.close()
            #expect(socket.descriptor == -1)

            var cancelled = 0
            for _ in 0..<20 {
                let socket = try Socket(for: address, on: loop)
                let connecting = loop.spawn { try await socket.connect(to: address) }
                connecting.cancel()
                if let error = await thrown({ try await connecting.value }) {
                    #expect(error == .cancelled(operation: "connect"))
                    cancelled += 1
                    try await socket.connect(to: address)
                }
                #expect(socket.remoteAddress == address)
                _ = try await listening.accept()
            }
        }
    }

    @Test("K8 those who accept are served in the order they came", arguments: LoopKind.available)
    func acceptOrder(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (listening, address) = try Self.makeListening(on: loop)
            let log = Log<Int>()
            let tasks = (0..<5).map { number in
                loop.spawn {
                    let accepted = try await listening.accept()
                    log.append(number)
                    return accepted.address
                }
            }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            tasks[0].cancel()
            tasks[2].cancel()
            for number in [0, 2] {
                let error = await thrown { _ = try await tasks[number].value }
                #expect(error == .cancelled(operation: "accept"))
            }
            var clients: [Socket] = []
            for _ in 0..<3 {
                let client = try Socket(for: address, on: loop)
                try await client.connect(to: address)
                clients.append(client)
            }
            for (client, number) in zip(clients, [1, 3, 4]) {
                let accepted = try await tasks[number].value
                #expect(accepted == client.localAddress)
            }
            #expect(log.all == [1, 3, 4])
        }
    }

    @Test("K8 closing ends all who accept, and those in the queue", arguments: LoopKind.available)
    func closeAccepting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (listening, _) = try Self.makeListening(on: loop)
            let tasks = (0..<4).map { _ in loop.spawn { _ = try await listening.accept() } }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            listening.close()
            for task in tasks {
                #expect(await thrown { try await task.value } == .connectionClosed(operation: "accept"))
            }
            #expect(listening.descriptor == -1)
        }
    }

    @Test("E8 all who accept end with the loop", arguments: LoopKind.available)
    func loopClose(kind: LoopKind) async throws {
        let tasks = try await onLoop(kind) { loop in
            let (listening, _) = try Self.makeListening(on: loop)
            let tasks = (0..<4).map { _ in loop.spawn { _ = try await listening.accept() } }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            return tasks
        }
        for task in tasks { #expect(await thrown { try await task.value } == .closed) }
    }

    @Test("C5 a host with a port, an address, several or a socket: each by itself", arguments: LoopKind.available)
    func overloads(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let address = listener.address
            let (datagram, stream) = try (
                check(socket(AF_INET, datagramType, 0), "socket"), Socket(for: address, on: loop)
            )
            defer { close(datagram) }
            try await stream.connect(to: address)
            let connections = [
                try await Connection.connect(to: address.host, port: address.port, on: loop),
                try await Connection.connect(to: address, on: loop),
                try await Connection.connect(to: [address], on: loop),
                try Connection(adopting: stream.release(), on: loop),
            ]
            for connection in connections {
                #expect(connection.remoteAddress == address)
                connection.abort()
            }
            #expect(await thrown { _ = try await Connection.connect(to: [], on: loop) } == .invalidAddress(""))
            #expect(await thrown { _ = try await Connection.connect(to: "", port: 1, on: loop) } == .invalidAddress(""))
            #expect(await thrown { _ = try await Connection.connect(toUnix: "", on: loop) } == .invalidAddress(""))
            #expect(await thrown { _ = try Connection(adopting: datagram, on: loop) }.errno == EPROTOTYPE)
        }
    }

    @Test("C9 connect to an abstract name", .realKernel("Unix sockets with names"), arguments: LoopKind.available)
    func unix(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let name = "\0event-loops-\(getpid())-\(kind)-C9"
            let address = try SocketAddress(unix: name)
            let listening = try Socket(for: address, on: loop)
            try listening.bind(to: address)
            try listening.listen()
            let connection = try await Connection.connect(toUnix: name, on: loop)
            let (server, peer) = try await listening.accept()
            #expect(peer == nil)
            #expect(connection.remoteAddress == address)
            try await server.sendAll([1, 2])
            let received = try await connection.read(atLeast: 2)
            #expect(received == [1, 2])
            await connection.close()
            listening.close()
            let error = await thrown { _ = try await Connection.connect(toUnix: name, on: loop) }
            #expect(error == .io(IOError(errno: ECONNREFUSED, operation: "connect to \(address)")))
        }
    }
}
