// SPDX-License-Identifier: Apache-2.0
//
// UnixDatagramTests.swift: Unix datagram sockets: their files, stale, too long, in use, and gone; and their names.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Binds where a socket was closed. Any child of this process has it open, too, until it executes its program (K18).
private func bindOnceFree(_ address: DatagramAddress, on loop: any Loop) async throws -> DatagramSocket {
    for _ in 0..<10_000 {
        if let socket = try? loop.bindDatagram(to: address) { return socket }
        try await loop.sleep(for: .milliseconds(1))
    }
    return try loop.bindDatagram(to: address)
}

@Suite("Unix datagram sockets", .datagrams, .timeLimit(.minutes(1)))
struct UnixDatagramTests {
    private func withDirectory(
        _ kind: LoopKind, _ body: @escaping @Sendable (any Loop, TemporaryDirectory) async throws -> Void
    ) async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        try await onLoop(kind) { loop in try await body(loop, directory) }
    }

    @Test("F61 D1 datagrams go between two files, and both are removed at the close", arguments: LoopKind.available)
    func files(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let server = try loop.bindDatagram(to: DatagramAddress(unixPath: "\(directory.path)/server"))
            let client = try loop.connectDatagram(
                to: server.localAddress, from: DatagramAddress(unixPath: "\(directory.path)/client"))
            #expect(directory.names == ["client", "server"])
            #expect(client.localAddress.unixPath == "\(directory.path)/client")
            #expect(client.remoteAddress == server.localAddress)
            try await client.send([1])
            let datagram = try await server.receive()
            #expect(datagram.address == client.localAddress)
            #expect("\(datagram.address)" == "unix:\(directory.path)/client")
            try await server.send([2], to: datagram.address)
            let answer = try await client.receive()
            #expect(answer.bytes == [2] && answer.address == server.localAddress)
            await client.close()
            #expect(directory.names == ["server"])
            await server.close()
            #expect(directory.names == [])
        }
    }

    @Test(
        "F61 D1 the file of a socket that is gone is replaced, one in use or of another kind is not",
        arguments: LoopKind.available)
    func stale(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let address = try DatagramAddress(unixPath: "\(directory.path)/socket")
            let left = try DatagramPeer(at: address)
            #expect(await thrown { _ = try loop.bindDatagram(to: address) }.errno == EADDRINUSE)
            let client = try loop.bindDatagram(to: .unusedName())
            try await client.send([1], to: address)
            #expect(try left.receive() == [1], "the one in use is untouched")
            left.close()
            #expect(directory.names == ["socket"])
            let socket = try await bindOnceFree(address, on: loop)
            try await client.send([2], to: address)
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [2])
            let file = "\(directory.path)/file"
            close(try check(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600), "open"))
            let error = await thrown { _ = try loop.bindDatagram(to: DatagramAddress(unixPath: file)) }
            #expect(error.errno == EADDRINUSE)
            #expect(String(describing: error).contains(file))
            #expect(directory.names == ["file", "socket"])
        }
    }

    /// A stream listener's file is not a stale one, although no datagram can be sent to it.
    @Test("F61 D1 the file of a stream socket in use is left alone", arguments: LoopKind.available)
    func streamFile(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let address = try DatagramAddress(unixPath: "\(directory.path)/socket")
            let (pair, peer) = try Peer.pair()
            close(pair)
            peer.close()
            let listener = try check(socket(AF_UNIX, streamKind, 0), "socket")
            defer { close(listener) }
            try check(address.withSockaddr { bind(listener, $0, $1) }, "bind")
            try check(listen(listener, 1), "listen")
            #expect(await thrown { _ = try loop.bindDatagram(to: address) }.errno == EADDRINUSE)
            #expect(directory.names == ["socket"])
        }
    }

    @Test("F61 D1 a file that has become another's is not removed at the close", arguments: LoopKind.available)
    func replaced(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let address = try DatagramAddress(unixPath: "\(directory.path)/socket")
            let socket = try loop.bindDatagram(to: address)
            #expect(rename("\(directory.path)/socket", "\(directory.path)/moved") == 0)
            let other = try DatagramPeer(at: address)
            await socket.close()
            #expect(directory.names == ["moved", "socket"])
            withExtendedLifetime(other) {}
        }
    }

    @Test("F61 D1 a socket that cannot be connected leaves no file behind", arguments: LoopKind.available)
    func unconnected(kind: LoopKind) async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        try await onLoop(kind) { loop in
            let mine = try DatagramAddress(unixPath: "\(directory.path)/mine")
            let nobody = try DatagramAddress(unixPath: "\(directory.path)/nobody")
            let error = await thrown { _ = try loop.connectDatagram(to: nobody, from: mine) }
            #expect(error.errno == ENOENT)
            #expect(directory.names == [])
            // One that was there and is in use stays.
            let socket = try loop.bindDatagram(to: mine)
            let again = await thrown { _ = try loop.connectDatagram(to: nobody, from: mine) }
            #expect(again.errno == EADDRINUSE)
            #expect(directory.names == ["mine"])
            await socket.close()
        }
    }

    @Test("F61 a file that is removed while its socket receives: the socket lives on", arguments: LoopKind.available)
    func removed(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let address = try DatagramAddress(unixPath: "\(directory.path)/socket")
            let socket = try loop.bindDatagram(to: address)
            let client = try loop.connectDatagram(to: address)
            let stranger = try loop.bindDatagram(to: .unusedName())
            let waiting = loop.spawn { try await socket.receive() }
            try await until("the receive waits", on: loop) { loop.waitingOperations == 1 }
            #expect(unlink("\(directory.path)/socket") == 0)
            // Who is connected still reaches it, who looks for the file does not.
            #expect(await thrown { try await stranger.send([1], to: address) }.errno == ENOENT)
            try await client.send([2])
            let datagram = try await waiting.value
            #expect(datagram.bytes == [2] && datagram.address.isUnnamed)
            await socket.close()
            let refused = try await refusal(on: loop) { try await client.send([3]) }
            #expect(refused.errno == ECONNREFUSED)
            #expect(await thrown { _ = try loop.connectDatagram(to: address) }.errno == ENOENT)
            let again = try loop.bindDatagram(to: address)
            try await stranger.send([4], to: address)
            let other = try await again.receive()
            #expect(other.bytes == [4] && other.address == stranger.localAddress)
        }
    }

    @Test(
        "F61 paths that cannot be are refused by name, the longest that can be is used", arguments: LoopKind.available)
    func lengths(kind: LoopKind) async throws {
        try await withDirectory(kind) { loop, directory in
            let longest = directory.path + "/" + String(repeating: "x", count: 107 - directory.path.utf8.count - 1)
            let address = try DatagramAddress(unixPath: longest)
            #expect(address.unixPath == longest)
            let socket = try loop.bindDatagram(to: address)
            #expect(socket.localAddress == address && socket.localAddress.unixPath == longest)
            #expect(directory.names.count == 1)
            let client = try loop.connectDatagram(to: address, from: .unusedName())
            try await client.send([1])
            let datagram = try await socket.receive()
            #expect(datagram.address == client.localAddress)
            await socket.close()
            #expect(directory.names == [])

            let tooLong = await thrown { _ = try DatagramAddress(unixPath: longest + "x") }
            #expect(tooLong.errno == ENAMETOOLONG)
            #expect(String(describing: tooLong).contains(longest + "x"))
            #expect(await thrown { _ = try DatagramAddress(unixPath: "") }.errno == EINVAL)
            #expect(await thrown { _ = try DatagramAddress(unixPath: "a\0b") }.errno == EINVAL)
            #expect(await thrown { _ = try DatagramAddress(abstractName: "") }.errno == EINVAL)
            let name = String(repeating: "n", count: 107)
            #expect(try DatagramAddress(abstractName: name).abstractName == name)
            #expect(await thrown { _ = try DatagramAddress(abstractName: name + "n") }.errno == ENAMETOOLONG)
            let missing = try DatagramAddress(unixPath: "\(directory.path)/missing/socket")
            #expect(await thrown { _ = try loop.bindDatagram(to: missing) }.errno == ENOENT)
        }
    }

    @Test("F61 names without a file, zero bytes in them too", arguments: LoopKind.available)
    func names(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let name = try #require(DatagramAddress.unusedName().abstractName) + "\0tail"
            let address = try DatagramAddress(abstractName: name)
            #expect(address.unixPath == nil && address.abstractName == name && !address.isUnnamed)
            let socket = try loop.bindDatagram(to: address)
            #expect(socket.localAddress == address)
            let client = try loop.connectDatagram(to: address)
            #expect(client.localAddress.isUnnamed && "\(client.localAddress)" == "unix:")
            try await client.send([1])
            let datagram = try await socket.receive()
            #expect(datagram.bytes == [1])
            await socket.close()
            _ = try await bindOnceFree(address, on: loop)
        }
    }

    @Test("F61 addresses are equal if they mean the same, and say what they are")
    func addresses() throws {
        let address = try DatagramAddress("127.0.0.1", 80)
        #expect(address == DatagramAddress(try SocketAddress("127.0.0.1", 80)))
        #expect(address != (try DatagramAddress("127.0.0.1", 81)))
        #expect(address != (try DatagramAddress("127.0.0.2", 80)))
        #expect("\(address)" == "127.0.0.1:80")
        #expect(address.unixPath == nil && address.abstractName == nil && !address.isUnnamed)
        let version6 = try DatagramAddress("::1", 80)
        #expect("\(version6)" == "[::1]:80" && version6 != address)
        let path = try DatagramAddress(unixPath: "/tmp/x")
        #expect(path.socketAddress == nil && "\(path)" == "unix:/tmp/x")
        #expect(path != (try DatagramAddress(abstractName: "/tmp/x")))
        #expect("\(try DatagramAddress(abstractName: "x"))" == "unix:@x")
        let set: Set = [address, version6, path, try DatagramAddress(unixPath: "/tmp/x")]
        #expect(set.count == 3)
        #expect(throws: LoopError.invalidAddress("nowhere")) { try DatagramAddress("nowhere", 1) }
    }
}

#if canImport(Glibc)
private let streamKind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
#else
private let streamKind = SOCK_STREAM | SOCK_CLOEXEC
#endif
