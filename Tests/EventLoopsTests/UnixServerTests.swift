// SPDX-License-Identifier: Apache-2.0
//
// UnixServerTests.swift: servers on Unix sockets: whose file is taken over, and whose is removed.

import EventLoops
import TestSupportC
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private func exists(_ path: String) -> Bool {
    var file = stat()
    return lstat(path, &file) == 0
}

@Suite(.timeLimit(.minutes(1)), .realKernel("files of Unix sockets"))
struct UnixServerTests {
    private static let echo: Server.Body = { connection in
        while let bytes = try await connection.read() { try await connection.write(bytes) }
    }

    private static func checkEcho(_ address: SocketAddress, on loop: any Loop) async throws {
        let connection = try await Connection.connect(to: address, on: loop)
        try await connection.write([1, 2, 3])
        #expect(try await connection.read(atLeast: 3) == [1, 2, 3])
        await connection.close()
    }

    @Test("V11 C9 a server at a path answers, and removes its file when it closes", arguments: LoopKind.available)
    func path(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let directory = try TemporaryDirectory()
            defer { directory.remove() }
            let address = try SocketAddress(unix: "\(directory.path)/s")
            let server = try Server(on: loop, endpoints: [address])
            #expect(server.addresses == [address])
            try server.start { connection in
                #expect(connection.localAddress == address)
                #expect(connection.remoteAddress == nil)
                try await Self.echo(connection)
            }
            #expect(exists(address.host))
            try await Self.checkEcho(address, on: loop)
            server.close()
            #expect(!exists(address.host))
            try await server.waitClosed()
            #expect(await thrown { _ = try await Connection.connect(to: address, on: loop) }.errno == ENOENT)
        }
    }

    @Test("V11 a socket left behind is taken over; a live one and other files are not", arguments: LoopKind.available)
    func takeOver(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let directory = try TemporaryDirectory()
            defer { directory.remove() }
            let address = try SocketAddress(unix: "\(directory.path)/s")
            let inUse = LoopError.io(IOError(errno: EADDRINUSE, operation: "listen on \(address)"))
            var leaving = ListenOptions()
            leaving.removesPath = false
            let first = try Listener(on: loop, address, options: leaving)
            #expect(throws: inUse) { _ = try Server(on: loop, endpoints: [address]) }
            first.close()
            // Its descriptor closes with the pass.
            try await loop.sleep(for: .zero)
            #expect(exists(address.host))

            let second = try Server(on: loop, endpoints: [address])
            try second.start(Self.echo)
            try await Self.checkEcho(address, on: loop)
            second.close()
            try await second.waitClosed()
            #expect(!exists(address.host))

            try directory.file("s")
            #expect(throws: inUse) { _ = try Server(on: loop, endpoints: [address]) }
            #expect(exists(address.host))
        }
    }

    @Test("V11 a file that is gone, or another's by now, is left alone", arguments: LoopKind.available)
    func replaced(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let directory = try TemporaryDirectory()
            defer { directory.remove() }
            let address = try SocketAddress(unix: "\(directory.path)/s")
            for isReplaced in [false, true] {
                let server = try Server(on: loop, endpoints: [address])
                try server.start(Self.echo)
                // Moved rather than removed: a number that is free again might be the next file's.
                #expect(rename(address.host, "\(directory.path)/other") == 0)
                if isReplaced { try directory.file("s") }
                server.close()
                try await server.waitClosed()
                #expect(exists(address.host) == isReplaced)
            }
        }
    }

    @Test(
        "V11 a server that never starts, and a loop that closes first, remove the file", arguments: LoopKind.available)
    func otherEnds(kind: LoopKind) async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let address = try SocketAddress(unix: "\(directory.path)/s")
        try await onThread {
            for isStarted in [false, true] {
                let loop = try kind.makeLoop()
                var server: Server? = try Server(on: loop, endpoints: [address])
                if isStarted { try server?.start(Self.echo) }
                #expect(exists(address.host))
                try loop.close()
                withExtendedLifetime(server) {}
                server = nil
                #expect(!exists(address.host))
            }
        }
    }

    @Test("V11 F27 a forked child that closes its loop leaves the parent's file alone", arguments: LoopKind.available)
    func forked(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let directory = try TemporaryDirectory()
            defer { directory.remove() }
            let address = try SocketAddress(unix: "\(directory.path)/s")
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                let listener = try Listener(on: loop, address)
                try listener.start { _ in }
                let both = Unmanaged.passRetained(Both(loop, listener))
                let closed = test_fork_run(
                    { context in
                        let both = Unmanaged<Both>.fromOpaque(context!).takeUnretainedValue()
                        both.listener.close()
                        return (try? both.loop.close()) != nil ? 1 : 0
                    }, both.toOpaque())
                both.release()
                #expect(closed == 1)
                #expect(exists(address.host))
                try loop.close()
                #expect(!exists(address.host))
            }
        }
    }

    private final class Both {
        let loop: any Loop
        let listener: Listener
        init(_ loop: any Loop, _ listener: Listener) { (self.loop, self.listener) = (loop, listener) }
    }

    @Test("V11 C9 abstract names have no file", arguments: LoopKind.available)
    func abstract(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let address = try SocketAddress(unix: "\0event-loops-\(getpid())-\(kind)")
            let server = try Server(on: loop, endpoints: [address])
            #expect(server.addresses == [address])
            #expect(address.description == "unix:@event-loops-\(getpid())-\(kind)")
            try server.start(Self.echo)
            try await Self.checkEcho(address, on: loop)
            #expect(throws: LoopError.io(IOError(errno: EADDRINUSE, operation: "listen on \(address)"))) {
                _ = try Server(on: loop, endpoints: [address])
            }
            server.close()
            try await server.waitClosed()
        }
    }

    @Test("V11 names that no Unix socket can have are refused")
    func names() throws {
        let longest = "/" + String(repeating: "x", count: 106)
        #expect(try SocketAddress(unix: longest).host == longest)
        for name in ["", "\0", longest + "x", "/tmp/a\0b"] {
            #expect(throws: LoopError.invalidAddress(name)) { _ = try SocketAddress(unix: name) }
        }
        let abstract = "\0a\0" + String(repeating: "x", count: 105)
        #expect(try SocketAddress(unix: abstract).host == abstract)
    }
}
