// SPDX-License-Identifier: Apache-2.0
//
// ServerTests.swift: servers: where they listen, whom they serve, and how they come to their end.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A server that nobody holds here. Written on its loop's thread, and read after that has ended.
private final class Weak<Object: AnyObject>: @unchecked Sendable { weak var value: Object? }

@Suite(.timeLimit(.minutes(1)))
struct ServerTests {
    private static func anyPort() throws(LoopError) -> SocketAddress { try SocketAddress("127.0.0.1", 0) }

    private static let echo: Server.Body = { connection in
        while let bytes = try await connection.read() { try await connection.write(bytes) }
    }

    private static func connect(_ server: Server) async throws -> Connection {
        let address = try #require(server.addresses.first)
        return try await Connection.connect(to: address.host, port: address.port, on: server.loop)
    }

    @Test("V1 a server listens on each address once", arguments: LoopKind.available)
    func severalAddresses(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let one = try Self.anyPort()
            let two = try SocketAddress("127.0.0.2", 0)
            let server = try Server(on: loop, endpoints: [one, two, one])
            #expect(server.addresses.map(\.host) == ["127.0.0.1", "127.0.0.2"])
            #expect(server.addresses.allSatisfy { $0.port != 0 })
            try server.start(Self.echo)
            for address in server.addresses {
                let connection = try await Connection.connect(to: address.host, port: address.port, on: loop)
                try await connection.write([1])
                #expect(try await connection.read(atLeast: 1) == [1])
                connection.abort()
            }
            server.close()
            try await server.waitClosed()
        }
    }

    @Test("V1 hosts are looked up, and an empty one is every address of this machine", arguments: LoopKind.available)
    func hosts(kind: LoopKind) async throws {
        struct Places: Resolver {
            func resolve(host: String, port: UInt16, on loop: any Loop) throws -> [SocketAddress] {
                try ["127.0.0.3", "127.0.0.4"].map { try SocketAddress($0, port) }
            }
        }
        try await onLoop(kind) { loop in
            loop.resolver = Places()
            let named = try await Server.bind(to: ["example.test", "127.0.0.3", "127.0.0.5"], port: 0, on: loop)
            #expect(named.addresses.map(\.host) == ["127.0.0.3", "127.0.0.4", "127.0.0.5"])
            #expect(Set(named.addresses.map(\.port)).count > 1)
            named.close()
            let everywhere = try await Server.bind(port: 0, on: loop)
            // Without IPv6 there is one.
            #expect(everywhere.addresses.map(\.host).starts(with: ["0.0.0.0"]))
            try everywhere.start(Self.echo)
            let port = try #require(everywhere.addresses.first).port
            let connection = try await Connection.connect(to: "127.0.0.9", port: port, on: loop)
            try await connection.write([3])
            #expect(try await connection.read(atLeast: 1) == [3])
            connection.abort()
            everywhere.close()
            try await everywhere.waitClosed()
        }
    }

    @Test(
        "V2 connections inherit the server's keep-alive", .realKernel("options of accepted sockets"),
        arguments: LoopKind.available)
    func keepAlive(kind: LoopKind) async throws {
        for wanted in [false, true] {
            try await onLoop(kind) { loop in
                var options = ListenOptions()
                options.keepAlive = wanted
                let server = try Server(on: loop, endpoints: [Self.anyPort()], options: options)
                let seen = Log<Int32>()
                try server.start { connection in
                    var value: Int32 = -1
                    var size = socklen_t(MemoryLayout<Int32>.size)
                    getsockopt(connection.descriptor, SOL_SOCKET, SO_KEEPALIVE, &value, &size)
                    seen.append(value)
                }
                #expect(try await Self.connect(server).readToEnd() == [])
                #expect(seen.all == [wanted ? 1 : 0])
                server.close()
                try await server.waitClosed()
            }
        }
    }

    @Test(
        "V2 delays, keep-alive's times and families are as the server has them", .realKernel("options of sockets"),
        arguments: LoopKind.available)
    func otherOptions(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var options = ListenOptions()
            options.noDelay = false
            options.keepAlive = true
            options.keepAliveTiming.idleSeconds = 71
            let seen = Log<Int32>()
            let server = try Server(on: loop, endpoints: [Self.anyPort()], options: options)
            try server.start { connection in
                for name in [TCP_NODELAY, TCP_KEEPIDLE] {
                    var value: Int32 = -1
                    var size = socklen_t(MemoryLayout<Int32>.size)
                    getsockopt(connection.descriptor, Int32(IPPROTO_TCP), name, &value, &size)
                    seen.append(value)
                }
            }
            #expect(try await Self.connect(server).readToEnd() == [])
            #expect(seen.all == [0, 71])
            server.close()
            try await server.waitClosed()

            options.v6Only = false
            guard let both = try? Server(on: loop, endpoints: [SocketAddress("::", 0)], options: options) else {
                return
            }
            try both.start(Self.echo)
            let port = try #require(both.addresses.first).port
            try await Connection.connect(to: "127.0.0.1", port: port, on: loop).abort()
            both.close()
            both.abortClients()
            try await both.waitClosed()
        }
    }

    @Test("V3 an address of another machine is passed over, one in use is not", arguments: LoopKind.available)
    func unavailableAddresses(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            // 192.0.2.0/24 is for documentation: nobody's.
            let foreign = try SocketAddress("192.0.2.1", 0)
            let server = try Server(on: loop, endpoints: [foreign, Self.anyPort()])
            #expect(server.addresses.map(\.host) == ["127.0.0.1"])
            #expect(throws: LoopError.io(IOError(errno: EADDRNOTAVAIL, operation: "listen on \(foreign)"))) {
                _ = try Server(on: loop, endpoints: [foreign])
            }
            try server.start(Self.echo)
            let taken = try #require(server.addresses.first)
            #expect(throws: LoopError.io(IOError(errno: EADDRINUSE, operation: "listen on \(taken)"))) {
                _ = try Server(on: loop, endpoints: [Self.anyPort(), taken])
            }
            server.close()
        }
    }

    @Test("V4 a pass accepts a batch, however many wait", arguments: LoopKind.available)
    func batches(kind: LoopKind) async throws {
        try await onThread {
            var options = LoopOptions()  // a tiny ring has less to hand out
            options.acceptBatch = 2
            let loop = try kind.makeLoop(options: options)
            defer { try? loop.close() }
            let listener = try Listener(on: loop, port: 0)
            var accepted: [Connection] = []
            try listener.start { accepted.append($0) }
            let peers = try (0..<7).map { _ in try Peer(to: listener.address.port) }
            var (before, most) = (0, 0)
            let all = try loop.pass {
                most = max(most, accepted.count - before)
                before = accepted.count
                return accepted.count == peers.count
            }
            #expect(all)
            #expect(most == 2)
        }
    }

    @Test("V6 a server refuses connections until it is started, and starts once", arguments: LoopKind.available)
    func starting(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            #expect(!server.isServing)
            #expect(await thrown { _ = try await Self.connect(server) }.errno == ECONNREFUSED)
            try server.start(Self.echo)
            try server.start { _ in Issue.record("the first body serves") }
            #expect(server.isServing)
            let connection = try await Self.connect(server)
            try await connection.write([7])
            #expect(try await connection.read(atLeast: 1) == [7])
            let again = await thrown { try await server.serve(Self.echo) }
            #expect(again == .busy(operation: "serve"))
            #expect(server.descriptors.count == 1)
            server.close()
            #expect(!server.isServing)
            #expect(server.descriptors.isEmpty)
            #expect(throws: LoopError.connectionClosed(operation: "start")) { try server.start(Self.echo) }
            connection.abort()
            try await server.waitClosed()
        }
    }

    @Test("V6 serving ends with its task, and so do its connections", arguments: LoopKind.available)
    func servingIsCancelled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            let endings = Log<String>()
            let serving = loop.spawn {
                try await server.serve { connection in
                    defer { endings.append("connection") }
                    try await Self.echo(connection)
                }
            }
            try await until("the server comes to that", on: loop) { server.isServing }
            let connection = try await Self.connect(server)
            try await until("the server comes to that", on: loop) { server.connectionCount == 1 }
            serving.cancel()
            #expect(await thrown { try await serving.value } == .cancelled(operation: "serve"))
            #expect(endings.all == ["connection"])
            #expect(server.isClosed)
            #expect(server.connectionCount == 0)
            #expect(try await connection.readToEnd() == [])
        }
    }

    @Test("V6 a started server is waited for by one task at a time", arguments: LoopKind.available)
    func servingWhatWasStarted(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            let early = await thrown { try await server.serve() }
            #expect(early == .io(IOError(errno: EINVAL, operation: "serve before start")))
            try server.start(Self.echo)
            let first = loop.spawn { try await server.serve() }
            try await until("the first one waits", on: loop) { loop.statistics.timers > 1 }
            #expect(await thrown { try await server.serve() } == .busy(operation: "serve"))
            server.close()
            try await first.value
            #expect(await thrown { try await server.serve() } == .connectionClosed(operation: "serve"))
        }
    }

    @Test("V6 serving that is cancelled does not wait for peers that do not read", arguments: LoopKind.available)
    func servingIsCancelledAmongSlowPeers(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            let serving = loop.spawn {
                try await server.serve(gracePeriod: .milliseconds(5)) { try await $0.write(pattern(8 << 20)) }
            }
            try await until("the server serves", on: loop) { server.isServing }
            let connection = try await Self.connect(server)
            _ = try await connection.read(atLeast: 1)
            serving.cancel()
            #expect(await thrown { try await serving.value } == .cancelled(operation: "serve"))
            #expect(server.connectionCount == 0)
            connection.abort()
        }
    }

    @Test("V7 close refuses new connections, and those there are go on", arguments: LoopKind.available)
    func closing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            // A host of its own: another test's listener might answer at the port.
            let server = try Server(on: loop, endpoints: [SocketAddress(ownHost(kind), 0)])
            try server.start(Self.echo)
            let address = try #require(server.addresses.first)
            let connection = try await Self.connect(server)
            try await until("the server comes to that", on: loop) { server.connectionCount == 1 }
            server.close()
            server.close()
            #expect(server.addresses.isEmpty)
            let late = await thrown {
                _ = try await Connection.connect(to: address.host, port: address.port, on: loop)
            }
            #expect(late.errno == ECONNREFUSED)
            try await connection.write([1, 2, 3])
            #expect(try await connection.read(atLeast: 3) == [1, 2, 3])
            await connection.close()
            try await server.waitClosed()
        }
    }

    @Test("V8 waitClosed waits for the close and the last connection, in any order", arguments: LoopKind.available)
    func waiting(kind: LoopKind) async throws {
        for closeFirst in [true, false] {
            try await onLoop(kind) { loop in
                let server = try Server(on: loop, endpoints: [Self.anyPort()])
                try server.start(Self.echo)
                let connection = try await Self.connect(server)
                try await until("the server comes to that", on: loop) { server.connectionCount == 1 }
                let order = Log<String>()
                let waits = (0..<2).map { _ in
                    loop.spawn {
                        try await server.waitClosed()
                        order.append("told")
                    }
                }
                if closeFirst {
                    server.close()
                    order.append("closed")
                    await connection.close()
                } else {
                    await connection.close()
                    try await until("the server comes to that", on: loop) { server.connectionCount == 0 }
                    order.append("closed")
                    server.close()
                }
                for wait in waits { try await wait.value }
                #expect(order.all == ["closed", "told", "told"])
                try await server.waitClosed()
            }
        }
    }

    @Test("V8 a wait that is cancelled ends alone", arguments: LoopKind.available)
    func cancelledWait(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            try server.start(Self.echo)
            let begun = Log<Int>()
            let (one, two) = (
                loop.spawn {
                    begun.append(1); try await server.waitClosed()
                },
                loop.spawn {
                    begun.append(2); try await server.waitClosed()
                }
            )
            try await until("the server comes to that", on: loop) { begun.all.count == 2 }
            one.cancel()
            #expect(await thrown { try await one.value } == .cancelled(operation: "waitClosed"))
            server.close()
            try await two.value
        }
    }

    @Test("V8 a wait ends with the loop, and the server with it", arguments: LoopKind.available)
    func loopClosesFirst(kind: LoopKind) async throws {
        let kept = Weak<Server>()
        let endings = Log<LoopError?>()
        try await onThread {
            let loop = try kind.makeLoop()
            try loop.run {
                let server = try Server(on: loop, endpoints: [Self.anyPort()])
                kept.value = server
                try server.start(Self.echo)
                loop.spawn { endings.append(await thrown { try await server.waitClosed() }) }
                loop.spawn { endings.append(await thrown { try await server.serve() }) }
                // A connection that outlives the run.
                let connection = try await Self.connect(server)
                loop.spawn { _ = try? await connection.read() }
                try await until("both wait", on: loop) { loop.statistics.timers > 1 && server.connectionCount == 1 }
            }
            try loop.close()
            if let kept = kept.value { #expect(!kept.isServing) }
        }
        // The tasks of a closed loop come to their end on a thread of their own.
        try await eventually("both are told, and nobody keeps the server") {
            endings.all.count == 2 && kept.value == nil
        }
        #expect(endings.all == [.closed, .closed])
    }

    @Test("V9 a server is closed and left from other threads", arguments: LoopKind.available)
    func otherThreads(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [SocketAddress(ownHost(kind), 0)])
            try server.start(Self.echo)
            let address = try #require(server.addresses.first)
            let connection = try await Self.connect(server)
            try await until("the server serves it", on: loop) { server.connectionCount == 1 }
            try await onThread {
                #expect(throws: LoopError.wrongThread(operation: "start")) { try server.start(Self.echo) }
                server.close()
                #expect(server.isClosed)
                server.closeClients()
            }
            #expect(try await connection.readToEnd() == [])
            try await server.waitClosed()
            let late = await thrown {
                _ = try await Connection.connect(to: address.host, port: address.port, on: loop)
            }
            #expect(late.errno == ECONNREFUSED)
        }
    }

    @Test("V9 clients are closed politely, or aborted", arguments: LoopKind.available)
    func clients(kind: LoopKind) async throws {
        for politely in [true, false] {
            try await onLoop(kind) { loop in
                let server = try Server(on: loop, endpoints: [Self.anyPort()])
                // More than the kernel takes from a writer whose peer does not read.
                let size = 8 << 20
                try server.start { connection in
                    connection.writeHighWaterMark = size
                    try await connection.write(pattern(size))
                    while try await connection.read() != nil {}
                }
                let connection = try await Self.connect(server)
                try await until("the server comes to that", on: loop) { server.connectionCount == 1 }
                let first = try await connection.read(atLeast: 1).count
                server.close()
                if politely { server.closeClients() } else { server.abortClients() }
                let rest = (try? await connection.readToEnd())?.count ?? 0
                // What the kernel had taken may still come.
                if politely { #expect(first + rest == size) } else { #expect(first + rest < size) }
                try await server.waitClosed()
                #expect(server.connectionCount == 0)
            }
        }
    }

    @Test("V9 shutdown gives connections time, and then aborts them", arguments: LoopKind.available)
    func shutdown(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let quick = try Server(on: loop, endpoints: [Self.anyPort()])
            try quick.start(Self.echo)
            let connection = try await Self.connect(quick)
            try await until("the server comes to that", on: loop) { quick.connectionCount == 1 }
            try loop.callSoon { connection.closeSoon() }
            #expect(try await quick.shutdown(gracePeriod: .seconds(30)))

            let slow = try Server(on: loop, endpoints: [Self.anyPort()])
            try slow.start(Self.echo)
            let lasting = try await Self.connect(slow)
            try await until("the server comes to that", on: loop) { slow.connectionCount == 1 }
            #expect(try await slow.shutdown(gracePeriod: .milliseconds(5)) == false)
            #expect(slow.connectionCount == 0)
            lasting.abort()
        }
    }

    @Test("V10 what a body throws is reported, and the server goes on", arguments: LoopKind.available)
    func bodyThrows(kind: LoopKind) async throws {
        struct Mishap: Error {}
        try await onLoop(kind) { loop in
            let reports = Log<String>()
            loop.onUnhandledError = { reports.append("\($1.message): \($1.error)") }
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            try server.start { connection in
                if try await connection.read()?.count == 1 { throw Mishap() }
            }
            for length in [1, 2] {
                let connection = try await Self.connect(server)
                try await connection.write(pattern(length))
                #expect(try await connection.readToEnd() == [])
            }
            #expect(reports.all == ["connection of a server: Mishap()"])
            server.close()
            try await server.waitClosed()
        }
    }

    @Test("V8 V9 V10 handlers serve, and the server waits for their losses", arguments: LoopKind.available)
    func handlers(kind: LoopKind) async throws {
        struct Mishap: Error {}
        final class Echo: StreamHandler {
            func received(_ bytes: consuming ReceivedBytes, on connection: Connection) throws {
                try connection.send(bytes)
            }
        }
        for politely in [true, false] {
            try await onLoop(kind) { loop in
                let reports = Log<String>()
                loop.onUnhandledError = { reports.append("\($1.message): \($1.error)") }
                let count = Log<Int>()
                let server = try Server(on: loop, endpoints: [Self.anyPort()])
                try server.startHandling { _ in
                    count.append(1)
                    if count.all.count == 1 { throw Mishap() }
                    return Echo()
                }
                #expect(try await Self.connect(server).readToEnd() == [])
                #expect(reports.all == ["connection of a server: Mishap()"])
                let clients = [try await Self.connect(server), try await Self.connect(server)]
                for client in clients {
                    try await client.write([5])
                    #expect(try await client.read(atLeast: 1) == [5])
                }
                #expect(server.connectionCount == 2)
                await clients[0].close()
                try await until("one is left", on: loop) { server.connectionCount == 1 }
                let waiting = loop.spawn { try await server.waitClosed() }
                server.close()
                if politely { server.closeClients() } else { server.abortClients() }
                #expect(server.connectionCount == 1)
                try await waiting.value
                #expect(server.connectionCount == 0)
                #expect(try await clients[1].readToEnd() == [])
            }
        }
    }

    @Test("V12 a server in a scope is closed at its end, and freed", arguments: LoopKind.available)
    func scope(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            weak var kept: Server?
            let answer = try await Server.withServer(on: loop, endpoints: [Self.anyPort()], serving: Self.echo) {
                server in
                kept = server
                #expect(server.isServing)
                #expect(server.loop === loop)
                let connection = try await Self.connect(server)
                try await connection.write([9])
                return try await connection.read(atLeast: 1)
            }
            #expect(answer == [9])
            // The last task of a connection lets go in the pass in which it ends.
            try await until("the server comes to that", on: loop) { kept == nil }
        }
    }

    @Test("V8 who waits for the end runs in its turn, not within the close", arguments: LoopKind.available)
    func closedWithin(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [SocketAddress("127.0.0.1", 0)])
            try server.start { _ in }
            let order = Log<String>()
            let waiting = loop.spawn {
                try await server.waitClosed()
                order.append("told")
            }
            try await until("it waits", on: loop) { loop.statistics.timers > 1 }
            server.close()
            order.append("closed")
            try await waiting.value
            #expect(order.all == ["closed", "told"])
        }
    }
}
