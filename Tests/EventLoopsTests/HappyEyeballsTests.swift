// SPDX-License-Identifier: Apache-2.0
//
// HappyEyeballsTests.swift: connecting to whichever of several addresses answers first.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A listener whose queue is full, so that the kernel leaves who comes next without an answer.
final class Deaf: Sendable {
    let address: SocketAddress
    private let descriptor: Int32
    private let guests: [Peer]

    init() throws {
        let (descriptor, port) = try makeFullListener()
        self.descriptor = descriptor
        address = try SocketAddress("127.0.0.1", port)
        // One more than its backlog of none has room for.
        guests = try [Peer(to: port)]
    }

    deinit { close(descriptor) }
}

@Suite(.timeLimit(.minutes(1)))
struct HappyEyeballsTests {
    /// An address that refuses: bound by a socket that does not listen.
    private static func refusing(_ loop: any Loop) throws -> (Server, SocketAddress) {
        let server = try Server(on: loop, endpoints: [SocketAddress("127.0.0.1", 0)])
        return (server, try #require(server.addresses.first))
    }

    @Test("C1 addresses are tried in turn, and those that fail are closed", arguments: LoopKind.available)
    func inTurn(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let (one, refusingOne) = try Self.refusing(loop)
            let (two, refusingTwo) = try Self.refusing(loop)
            for delay: Duration? in [nil, .seconds(30)] {
                var options = ConnectOptions()
                options.happyEyeballsDelay = delay
                let connection = try await Connection.connect(
                    to: [refusingOne, refusingTwo, listener.address], on: loop, options: options)
                #expect(connection.remoteAddress == listener.address)
                connection.abort()
                try await listener.accept().abort()
                try await until("this one alone is left", on: loop) { loop.statistics.connections == 1 }
            }
            one.close()
            two.close()
        }
    }

    @Test("C3 an address that does not answer is passed after the delay, and let go", arguments: LoopKind.available)
    func passedOver(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let deaf = try Deaf()
            let listener = try Listener(on: loop, port: 0)
            var options = ConnectOptions()
            options.happyEyeballsDelay = .milliseconds(5)
            let begin = LoopInstant.now
            let connection = try await Connection.connect(
                to: [deaf.address, deaf.address, listener.address], on: loop, options: options)
            #expect(LoopInstant.now >= begin.advanced(by: .milliseconds(10)))
            #expect(connection.remoteAddress == listener.address)
            try await listener.accept().abort()
            connection.abort()
            try await until("this one alone is left", on: loop) { loop.statistics.connections == 1 }
            listener.close()
            try await until("and nothing waits", on: loop) { loop.waitingOperations == 0 }
        }
    }

    @Test("C3 of several that answer one is kept, and the others are closed", arguments: LoopKind.available)
    func winner(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listeners = try (0..<3).map { _ in try Listener(on: loop, port: 0) }
            var options = ConnectOptions()
            options.happyEyeballsDelay = .zero
            for _ in 0..<20 {
                let connection = try await Connection.connect(
                    to: listeners.map(\.address), on: loop, options: options)
                #expect(listeners.map(\.address).contains(try #require(connection.remoteAddress)))
                connection.abort()
            }
            for listener in listeners { listener.close() }
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
        }
    }

    @Test("C3 families alternate, behind so many of the first one")
    func order() throws {
        let (a, b, c) = try (SocketAddress("1.0.0.1", 1), SocketAddress("1.0.0.2", 1), SocketAddress("1.0.0.3", 1))
        let (x, y) = try (SocketAddress("::1", 1), SocketAddress("::2", 1))
        func order(_ addresses: [SocketAddress], _ count: Int) -> [SocketAddress] {
            Connection.interleaved(addresses, firstFamilyCount: count)
        }
        #expect(order([x, y, a, b, c], 1) == [x, a, y, b, c])
        #expect(order([a, b, c, x, y], 2) == [a, b, x, c, y])
        #expect(order([a, b, c, x], 9) == [a, b, c, x])
        #expect(order([a, x], 0) == [a, x])
        #expect(order([a, x], .min) == [a, x])
        #expect(order([a, b, x], .max) == [a, b, x])
        #expect(order([c, a, b], 1) == [c, a, b])
        #expect(order([], 1) == [])
    }

    @Test("C4 of one attempt its error is told, of several all", arguments: LoopKind.available)
    func errors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, refusingOne) = try Self.refusing(loop)
            let (two, refusingTwo) = try Self.refusing(loop)
            func refused(_ address: SocketAddress) -> IOError {
                IOError(errno: ECONNREFUSED, operation: "connect to \(address)")
            }
            let alone = await thrown { _ = try await Connection.connect(to: [refusingOne], on: loop) }
            #expect(alone == .io(refused(refusingOne)))
            for delay: Duration? in [nil, .zero, .seconds(30)] {
                var options = ConnectOptions()
                options.happyEyeballsDelay = delay
                let error = await thrown {
                    _ = try await Connection.connect(to: [refusingOne, refusingTwo], on: loop, options: options)
                }
                #expect(
                    error
                        == .connectFailed([
                            ConnectAttempt(address: refusingOne, error: refused(refusingOne)),
                            ConnectAttempt(address: refusingTwo, error: refused(refusingTwo)),
                        ]))
            }
            let none = await thrown { _ = try await Connection.connect(to: [], on: loop) }
            #expect(none == .invalidAddress(""))
            one.close()
            two.close()
        }
    }

    @Test("C2 the local address is the first of the right family that can be had", arguments: LoopKind.available)
    func localAddress(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            var options = ConnectOptions()
            options.localAddresses = try [
                SocketAddress("::1", 0), SocketAddress("192.0.2.1", 0), SocketAddress("127.0.0.7", 0),
            ]
            let connection = try await Connection.connect(to: listener.address, on: loop, options: options)
            #expect(connection.localAddress?.host == "127.0.0.7")
            #expect(try await listener.accept().remoteAddress == connection.localAddress)

            options.localAddresses = try [SocketAddress("192.0.2.1", 0)]
            let foreign = await thrown {
                _ = try await Connection.connect(to: listener.address, on: loop, options: options)
            }
            #expect(foreign == .io(IOError(errno: EADDRNOTAVAIL, operation: "bind to 192.0.2.1:0")))
            options.localAddresses = try [SocketAddress("::1", 0)]
            let family = await thrown {
                _ = try await Connection.connect(to: listener.address, on: loop, options: options)
            }
            let wanted = "find a local address for \(listener.address)"
            #expect(family == .io(IOError(errno: EADDRNOTAVAIL, operation: wanted)))
            try await until("no failed one is left", on: loop) { loop.statistics.connections == 1 }
            connection.abort()
        }
    }

    @Test("C8 a race that is cancelled leaves nothing open", arguments: LoopKind.available)
    func cancelled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let deaf = try Deaf()
            var options = ConnectOptions()
            options.happyEyeballsDelay = .zero
            let race = loop.spawn { [options] in
                _ = try await Connection.connect(to: [deaf.address, deaf.address], on: loop, options: options)
            }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            race.cancel()
            #expect(await thrown { try await race.value } == .cancelled(operation: "connect"))
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test(
        "C6 connections have no delay, and keep-alive if asked for", .realKernel("options of sockets"),
        arguments: LoopKind.available)
    func options(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            func value(_ descriptor: Int32, _ level: Int32, _ name: Int32) -> Int32 {
                var value: Int32 = -1
                var size = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(descriptor, level, name, &value, &size)
                return value
            }
            func option(_ descriptor: Int32, _ level: Int32, _ name: Int32) -> Bool {
                value(descriptor, level, name) > 0
            }
            let listener = try Listener(on: loop, port: 0)
            for keepAlive in [false, true] {
                var options = ConnectOptions()
                options.keepAlive = keepAlive
                let connection = try await Connection.connect(to: listener.address, on: loop, options: options)
                #expect(option(connection.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY))
                #expect(option(connection.descriptor, SOL_SOCKET, SO_KEEPALIVE) == keepAlive)
                connection.abort()
            }
            var options = ConnectOptions()
            options.noDelay = false
            options.keepAlive = true
            options.keepAliveTiming.idleSeconds = 71
            options.keepAliveTiming.intervalSeconds = 72
            options.keepAliveTiming.probes = 3
            let timed = try await Connection.connect(to: listener.address, on: loop, options: options)
            #expect(!option(timed.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY))
            for (name, wanted) in [(TCP_KEEPIDLE, 71), (TCP_KEEPINTVL, 72), (TCP_KEEPCNT, 3)] as [(Int32, Int32)] {
                #expect(value(timed.descriptor, Int32(IPPROTO_TCP), name) == wanted)
            }
            options.keepAliveTiming.probes = 1_000_000
            let refused = await thrown {
                _ = try await Connection.connect(to: listener.address, on: loop, options: options)
            }
            #expect(refused.errno == EINVAL)
            timed.abort()
            let peer = try Peer(to: listener.address.port)
            let adopted = try Connection(adopting: dup(peer.descriptor), on: loop)
            #expect(option(peer.descriptor, Int32(IPPROTO_TCP), TCP_NODELAY))
            adopted.abort()
        }
    }
}
