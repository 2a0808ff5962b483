// SPDX-License-Identifier: Apache-2.0
//
// OutsideProgramsTests.swift: both loops and programs that know nothing of them: python's asyncio on either end, curl,
// socat and nc. Those that are not here are skipped, and the reason is said.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.realKernel("another process is the peer"), .timeLimit(.minutes(1)))
struct OutsideProgramsTests {
    private static let bulk = (LoopOptions.forTests == .tiny ? 1 : 16) * 1024 * 1024

    /// More than the buffers of two sockets take, so that some of it is still queued when writing is finished.
    private static let queued = 8 * 1024 * 1024

    private static func queueAndFinish(_ connection: Connection) async throws {
        connection.writeHighWaterMark = .max
        try await connection.write(pattern(queued))
        try connection.finishWriting()
    }

    private static func anyPort() throws -> SocketAddress { try SocketAddress("127.0.0.1", 0) }

    private static let echo: Server.Body = { connection in
        while let bytes = try await connection.read() { try await connection.write(bytes) }
    }

    /// What `program` came to as a client of `serve`, which has ended too; its errors are the test's.
    private func run(
        _ program: OutsideProgram, on kind: LoopKind, sending input: [UInt8] = [],
        _ arguments: @escaping @Sendable (UInt16) -> [String], servedBy serve: @escaping Server.Body
    ) async throws -> RunningProgram.Outcome {
        try await onLoop(kind) { loop in
            let errors = Log<String>()
            loop.onUnhandledError = { errors.append("\($1)") }
            let outcome = try await Server.withServer(on: loop, endpoints: [Self.anyPort()], serving: serve) { server in
                let outcome = try await self.run(program, arguments(server.addresses[0].port), sending: input, on: loop)
                try await until("the connections have ended", on: loop) { server.connectionCount == 0 }
                return outcome
            }
            #expect(errors.all == [])
            return outcome
        }
    }

    /// Starts a program beside the loop, and waits for its end.
    private func run(
        _ program: OutsideProgram, _ arguments: [String], sending input: [UInt8] = [], on loop: any Loop
    ) async throws -> RunningProgram.Outcome {
        try await loop.spawn {
            try await onThread { try RunningProgram(program, arguments).finish(sending: input) }
        }.value
    }

    /// The same for a program that serves: `body` has a connection to the port that it prints in a line with `text`.
    private func connect(
        to program: OutsideProgram, on kind: LoopKind, _ arguments: [String],
        portIn stream: RunningProgram.Stream = .output, after text: String = "",
        _ body: @escaping @Sendable (Connection) async throws -> Void
    ) async throws -> RunningProgram.Outcome {
        try await onLoop(kind) { loop in
            let (running, line) = try await loop.spawn {
                try await onThread {
                    let running = try RunningProgram(program, arguments)
                    return (running, try running.line(stream, containing: text))
                }
            }.value
            let port = try #require(line.split(separator: ":").last.flatMap { UInt16($0) }, "\(line)")
            let connection = try await Connection.connect(to: "127.0.0.1", port: port, on: loop)
            try await body(connection)
            await connection.close()
            return try await loop.spawn { try await onThread { try running.finish() } }.value
        }
    }

    // MARK: asyncio as a client

    @Test(
        "V1 python's asyncio talks to our server: echo, on ten connections at once",
        .program(.python), arguments: LoopKind.available)
    func asyncioEcho(kind: LoopKind) async throws {
        let outcome = try await run(.python, on: kind, { Python.client(Python.echoes, $0) }, servedBy: Self.echo)
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test("Q1 python's asyncio talks to our handlers: echo", .program(.python), arguments: LoopKind.available)
    func asyncioEchoOfHandlers(kind: LoopKind) async throws {
        let outcome = try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            try listener.start { connection in
                #expect(throws: Never.self) { try connection.start(EchoHandler()) }
            }
            let outcome = try await run(.python, Python.client(Python.echoes, listener.address.port), on: loop)
            try await until("the connections have ended", on: loop) { loop.statistics.connections == 0 }
            listener.close()
            return outcome
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test(
        "P6 python's asyncio finishes writing to our server, and reads the rest",
        .program(.python), arguments: LoopKind.available)
    func asyncioFinishesWriting(kind: LoopKind) async throws {
        let script = """
            async def main():
                reader, writer = await connect()
                writer.write(pattern(300_000))
                writer.write_eof()
                assert await reader.read() == pattern(300_001, 7)
                await close(writer)
            """
        let received = Log<String?>()
        let outcome = try await run(
            .python, on: kind, { Python.client(script, $0) },
            servedBy: { connection in
                received.append(difference(try await connection.readToEnd(), pattern(300_000)))
                try await connection.write(pattern(300_001, from: 7))
            })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(received.all == [nil])
    }

    @Test(
        "P6 our server finishes writing to python's asyncio, and reads the rest",
        .program(.python), arguments: LoopKind.available)
    func finishesWritingToAsyncio(kind: LoopKind) async throws {
        let script = """
            async def main():
                reader, writer = await connect()
                assert await reader.read() == pattern(\(Self.queued))
                writer.write(pattern(300_001, 7))
                await writer.drain()
                await close(writer)
            """
        let received = Log<String?>()
        let outcome = try await run(
            .python, on: kind, { Python.client(script, $0) },
            servedBy: { connection in
                try await Self.queueAndFinish(connection)
                received.append(difference(try await connection.readToEnd(), pattern(300_001, from: 7)))
            })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(received.all == [nil])
    }

    @Test(
        "P12 16 MiB from python's asyncio to our server and back, byte for byte",
        .program(.python), arguments: LoopKind.available)
    func asyncioTransfer(kind: LoopKind) async throws {
        let script = """
            async def main():
                sent = pattern(\(Self.bulk))
                reader, writer = await connect()
                async def send():
                    for first in range(0, len(sent), 262144):
                        writer.write(sent[first:first + 262144])
                        await writer.drain()
                    writer.write_eof()
                sending = asyncio.ensure_future(send())
                assert await reader.read() == sent
                await sending
                await close(writer)
            """
        let outcome = try await run(.python, on: kind, { Python.client(script, $0) }, servedBy: Self.echo)
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test("P2 python's asyncio is told of our reset", .program(.python), arguments: LoopKind.available)
    func asyncioSeesReset(kind: LoopKind) async throws {
        let script = """
            async def main():
                reader, writer = await connect()
                writer.write(b"x")
                try:
                    got = await reader.read()
                except ConnectionResetError:
                    return
                raise AssertionError("the end rather than a reset, after %r" % got)
            """
        let outcome = try await run(
            .python, on: kind, { Python.client(script, $0) },
            servedBy: { connection in
                let received = try await connection.read(atLeast: 1)
                #expect(received.count == 1)
                connection.abort(reset: true)
            })
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test("P13 a reset by python's asyncio is our read's error", .program(.python), arguments: LoopKind.available)
    func asyncioResets(kind: LoopKind) async throws {
        let script = """
            import socket, struct
            async def main():
                reader, writer = await connect()
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            """
        let errors = Log<Int32>()
        let outcome = try await run(
            .python, on: kind, { Python.client(script, $0) },
            servedBy: { connection in
                errors.append(await thrown { try await Self.echo(connection) }.errno)
            })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(errors.all == [ECONNRESET])
    }

    @Test(
        "V9 clients of python's asyncio see the end when a server closes them",
        .program(.python), arguments: LoopKind.available)
    func asyncioSeesTheEnd(kind: LoopKind) async throws {
        let script = """
            async def main():
                streams = [await connect() for _ in range(5)]
                for reader, writer in streams:
                    writer.write(b"x")
                    assert await reader.readexactly(1) == b"x"
                print("connected", flush=True)
                for reader, writer in streams:
                    assert await reader.read() == b""
                    await close(writer)
            """
        let outcome = try await onLoop(kind) { loop in
            let server = try Server(on: loop, endpoints: [Self.anyPort()])
            try server.start(Self.echo)
            let arguments = Python.client(script, server.addresses[0].port)
            let running = try await loop.spawn {
                try await onThread {
                    let running = try RunningProgram(.python, arguments)
                    let line = try running.line()
                    #expect(line == "connected")
                    return running
                }
            }.value
            #expect(server.connectionCount == 5)
            server.close()
            server.closeClients()
            try await server.waitClosed()
            return try await loop.spawn { try await onThread { try running.finish() } }.value
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    // MARK: asyncio as a server

    @Test("K4 ours talks to a server of python's asyncio: echo", .program(.python), arguments: LoopKind.available)
    func echoOfAsyncio(kind: LoopKind) async throws {
        let outcome = try await connect(to: .python, on: kind, Python.server(Python.echo)) { connection in
            for round in 0..<20 {
                let sent = pattern(1 + 997 * round, from: round)
                try await connection.write(sent)
                let received = try await connection.read(atLeast: sent.count)
                #expect(received == sent)
            }
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test(
        "P6 ours finishes writing to a server of python's asyncio, and reads the rest",
        .program(.python), arguments: LoopKind.available)
    func finishesWritingToAsyncioServer(kind: LoopKind) async throws {
        let script = """
            async def client(reader, writer):
                assert await reader.read() == pattern(\(Self.queued))
                writer.write(pattern(300_001, 7))
                await writer.drain()
            """
        let outcome = try await connect(to: .python, on: kind, Python.server(script)) { connection in
            try await Self.queueAndFinish(connection)
            let received = try await connection.readToEnd()
            #expect(difference(received, pattern(300_001, from: 7)) == nil)
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test(
        "P6 a server of python's asyncio finishes writing, and reads the rest",
        .program(.python), arguments: LoopKind.available)
    func asyncioServerFinishesWriting(kind: LoopKind) async throws {
        let script = """
            async def client(reader, writer):
                writer.write(pattern(300_000))
                writer.write_eof()
                assert await reader.read() == pattern(300_001, 7)
            """
        let outcome = try await connect(to: .python, on: kind, Python.server(script)) { connection in
            let received = try await connection.readToEnd()
            #expect(difference(received, pattern(300_000)) == nil)
            try await connection.write(pattern(300_001, from: 7))
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test(
        "P8 P12 16 MiB to a server of python's asyncio and back, byte for byte",
        .program(.python), arguments: LoopKind.available)
    func transferToAsyncio(kind: LoopKind) async throws {
        let outcome = try await connect(to: .python, on: kind, Python.server(Python.echo)) { connection in
            let sent = pattern(Self.bulk)
            async let echo = connection.readToEnd()
            for first in stride(from: 0, to: sent.count, by: 262_144) {
                try await connection.write(Array(sent[first..<first + 262_144]))
                #expect(connection.unsentByteCount <= connection.writeHighWaterMark)
            }
            try connection.finishWriting()
            let received = try await echo
            #expect(difference(received, sent) == nil)
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    // MARK: Datagrams

    // Empty ones stay out of it: before 3.13 asyncio sends none.

    @Test(
        "D1 D2 datagrams of python's asyncio come to our socket, and go back",
        .program(.python), arguments: LoopKind.available)
    func datagramsFromAsyncio(kind: LoopKind) async throws {
        let script = """
            class Client(asyncio.DatagramProtocol):
                def __init__(self):
                    self.received = asyncio.Queue()
                def datagram_received(self, data, address):
                    self.received.put_nowait(data)

            async def main():
                transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                    Client, remote_addr=("127.0.0.1", int(sys.argv[1])))
                for round in range(20):
                    sent = pattern(1 + 997 * round, round)
                    transport.sendto(sent)
                    assert await protocol.received.get() == sent, round
                transport.close()
            """
        let outcome = try await onLoop(kind) { loop in
            let socket = try loop.bindDatagram(to: DatagramAddress("127.0.0.1", 0))
            let port = try #require(socket.localAddress.socketAddress?.port)
            let echo = loop.spawn {
                while true {
                    let datagram = try await socket.receive()
                    #expect(!datagram.isTruncated)
                    try await socket.send(datagram.bytes, to: datagram.address)
                }
            }
            let arguments = Python.client(script, port)
            let outcome = try await loop.spawn {
                try await onThread { try RunningProgram(.python, arguments).finish() }
            }.value
            echo.cancel()
            #expect(await thrown { try await echo.value } == .cancelled(operation: "receive"))
            await socket.close()
            return outcome
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test(
        "D1 D2 datagrams of ours come to an endpoint of python's asyncio, and go back",
        .program(.python), arguments: LoopKind.available)
    func datagramsToAsyncio(kind: LoopKind) async throws {
        let script = """
            class Server(asyncio.DatagramProtocol):
                def __init__(self, ended):
                    self.ended = ended
                def connection_made(self, transport):
                    self.transport = transport
                def datagram_received(self, data, address):
                    if data == b"end":
                        self.ended.set_result(None)
                    else:
                        self.transport.sendto(data, address)

            async def main():
                loop = asyncio.get_running_loop()
                ended = loop.create_future()
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: Server(ended), local_addr=("127.0.0.1", 0))
                print(transport.get_extra_info("sockname")[1], flush=True)
                await ended
                transport.close()
            """
        let outcome = try await onLoop(kind) { loop in
            let (running, line) = try await loop.spawn {
                try await onThread {
                    let running = try RunningProgram(.python, Python.client(script, 0))
                    return (running, try running.line())
                }
            }.value
            let port = try #require(UInt16(line), "\(line)")
            let socket = try loop.connectDatagram(to: DatagramAddress("127.0.0.1", port))
            for round in 0..<20 {
                let sent = pattern(1 + 997 * round, from: round)
                try await socket.send(sent)
                let received = try await socket.receive()
                #expect(received.bytes == sent)
            }
            try await socket.send(Array("end".utf8))
            let outcome = try await loop.spawn { try await onThread { try running.finish() } }.value
            await socket.close()
            return outcome
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    // MARK: curl

    private static func urls(_ port: UInt16, _ targets: [String]) -> [String] {
        let quiet = ["--disable", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "25"]
        return quiet + targets.map { "http://127.0.0.1:\(port)\($0)" }
    }

    /// Answers `/bytes/N` with so many bytes.
    private static let bytes = HTTPResponder { request in
        let parts = request.target.split(separator: "/")
        guard request.method == "GET", parts.count == 2, let count = Int(parts[1]) else { return nil }
        return pattern(count, from: count)
    }

    @Test("V1 curl gets some MiB from our server, byte for byte", .program(.curl), arguments: LoopKind.available)
    func curlGets(kind: LoopKind) async throws {
        let count = 5_000_000
        let outcome = try await run(
            .curl, on: kind, { Self.urls($0, ["/bytes/\(count)"]) }, servedBy: { try await Self.bytes.serve($0) })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(difference(outcome.output, pattern(count, from: count)) == nil)
    }

    @Test("V1 curl makes twenty requests of one connection", .program(.curl), arguments: LoopKind.available)
    func curlKeepsAlive(kind: LoopKind) async throws {
        let counts = (0..<20).map { 1 + 3_001 * $0 }
        let connections = Log<Int>()
        let outcome = try await run(
            .curl, on: kind, { Self.urls($0, counts.map { "/bytes/\($0)" }) },
            servedBy: { connection in
                connections.append(1)
                try await Self.bytes.serve(connection)
            })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(difference(outcome.output, counts.flatMap { pattern($0, from: $0) }) == nil)
        #expect(connections.all == [1])
    }

    @Test("P12 curl posts some MiB to our server, and gets them back", .program(.curl), arguments: LoopKind.available)
    func curlPosts(kind: LoopKind) async throws {
        let body = pattern(3_000_000)
        let outcome = try await run(
            .curl, on: kind, sending: body, { Self.urls($0, ["/"]) + ["--data-binary", "@-"] },
            servedBy: { connection in
                try await HTTPResponder { $0.method == "POST" ? $0.body : nil }.serve(connection)
            })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(difference(outcome.output, body) == nil)
    }

    // MARK: socat and nc

    /// Answers once the peer has finished.
    private static func answerAtEnd(_ connection: Connection) async throws {
        try await connection.write(Array(try await connection.readToEnd().reversed()))
    }

    @Test(
        "P6 socat finishes writing to our server, and reads the rest", .program(.socat), arguments: LoopKind.available)
    func socatFinishesWriting(kind: LoopKind) async throws {
        let input = pattern(500_000)
        let outcome = try await run(
            .socat, on: kind, sending: input, { ["-t", "25", "-", "TCP4:127.0.0.1:\($0)"] },
            servedBy: { try await Self.answerAtEnd($0) })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(difference(outcome.output, input.reversed()) == nil)
    }

    @Test("K4 ours talks to a server of socat: echo, to the end", .program(.socat), arguments: LoopKind.available)
    func echoOfSocat(kind: LoopKind) async throws {
        let arguments = ["-d", "-d", "-t", "25", "TCP4-LISTEN:0,bind=127.0.0.1", "PIPE"]
        let outcome = try await connect(
            to: .socat, on: kind, arguments, portIn: .errors, after: "listening on"
        ) { connection in
            let sent = pattern(30_000)
            try await connection.write(sent)
            try connection.finishWriting()
            let received = try await connection.readToEnd()
            #expect(difference(received, sent) == nil)
        }
        #expect(outcome.status == 0, "\(outcome)")
    }

    @Test("P6 nc finishes writing to our server, and reads the rest", .program(.netcat), arguments: LoopKind.available)
    func netcatFinishesWriting(kind: LoopKind) async throws {
        let input = pattern(500_000)
        let outcome = try await run(
            .netcat, on: kind, sending: input, { ["-N", "127.0.0.1", "\($0)"] },
            servedBy: { try await Self.answerAtEnd($0) })
        #expect(outcome.status == 0, "\(outcome)")
        #expect(difference(outcome.output, input.reversed()) == nil)
    }
}

private final class EchoHandler: StreamHandler {
    func received(_ bytes: consuming ReceivedBytes, on connection: Connection) {
        do { try connection.send(bytes) } catch { Issue.record(error) }
    }
}

/// Scripts for asyncio, each of which ends within 25 seconds, and without 0 where something is not as it should be.
private enum Python {
    private static let common = """
        import asyncio, os, sys
        os.closerange(3, 1024)  # another test's descriptors, should some have come along

        block = bytes((i * 31 + (i >> 8)) & 255 for i in range(65521))

        def pattern(count, first=0):
            first %= len(block)
            return (block * ((first + count) // len(block) + 1))[first:first + count]

        async def connect():
            return await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))

        async def close(writer):
            writer.close()
            await writer.wait_closed()

        """

    /// Arguments for a script that defines `main()`.
    static func client(_ script: String, _ port: UInt16) -> [String] {
        ["-I", "-c", common + script + "\nasyncio.run(asyncio.wait_for(main(), 25))\n", "\(port)"]
    }

    /// Arguments for a script that defines `client(reader, writer)`: a server that prints its port, serves one client,
    /// and ends as that did.
    static func server(_ script: String) -> [String] {
        let main = """

            async def main():
                ended = asyncio.get_event_loop().create_future()
                async def serve(reader, writer):
                    try:
                        await client(reader, writer)
                        await close(writer)
                        ended.set_result(None)
                    except BaseException as error:
                        ended.set_exception(error)
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                print(server.sockets[0].getsockname()[1], flush=True)
                await ended
                server.close()

            asyncio.run(asyncio.wait_for(main(), 25))

            """
        return ["-I", "-c", common + script + main]
    }

    static let echoes = """
        async def talk(number):
            reader, writer = await connect()
            for round in range(20):
                sent = pattern(1 + 997 * round, number * 50)
                writer.write(sent)
                await writer.drain()
                assert await reader.readexactly(len(sent)) == sent, (number, round)
            writer.write_eof()
            assert await reader.read() == b""
            await close(writer)

        async def main():
            await asyncio.gather(*(talk(number) for number in range(10)))
        """

    static let echo = """
        async def client(reader, writer):
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        """
}
