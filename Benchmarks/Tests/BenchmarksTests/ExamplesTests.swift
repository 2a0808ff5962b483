// SPDX-License-Identifier: Apache-2.0

import EventLoops
import Glibc
import Testing

@testable import loopbench

/// The programs under Examples do what their first lines say, on both loops.
@Suite(.timeLimit(.minutes(5)))
struct ExamplesTests {
    /// Where io_uring is refused, says so instead of passing quietly.
    static let loops: [String] = {
        guard case .denied(let why) = ProactorLoop.probe() else { return ["selector", "proactor"] }
        print("SKIPPED proactor: \(why)")
        return ["selector"]
    }()

    private func start(_ name: String, _ arguments: String..., on loop: String) throws -> ServerProcess {
        try ServerProcess(
            command: [try Programs.beside(name)] + arguments, cpu: nil, environment: ["LOOP_POLICY=\(loop)"])
    }

    @Test(arguments: loops)
    func echo(_ loop: String) throws {
        let server = try start("echo", "0", on: loop)
        let client = try Client(server.port)
        client.send("good morning")
        client.finish()
        #expect(client.receiveAll() == "good morning")
    }

    @Test(arguments: loops)
    func chat(_ loop: String) throws {
        let server = try start("chat", "0", on: loop)
        let (one, two) = (try Client(server.port), try Client(server.port))
        // Once two hears one, both are in the room.
        one.send("a")
        two.send("b")
        #expect(one.receive(1) == "b")
        one.send("c")
        #expect(two.receive(1).contains { "ac".contains($0) })
    }

    /// A client that does not read loses its place, and the others go on.
    @Test(arguments: loops)
    func chatShowsSlowReadersOut(_ loop: String) throws {
        let server = try start("chat", "0", on: loop)
        let (talker, sleeper, listener) = (
            try Client(server.port), try Client(server.port), try Client(server.port)
        )
        let piece = String(repeating: "x", count: 64 * 1024)
        for _ in 0..<256 {
            talker.send(piece)
            #expect(listener.receive(piece.utf8.count).utf8.count == piece.utf8.count)
        }
        #expect(sleeper.receiveAll().utf8.count < 256 * piece.utf8.count)
    }

    @Test(arguments: loops)
    func tcpProxy(_ loop: String) throws {
        let server = try start("echo", "0", on: loop)
        let proxy = try start("tcp-proxy", "0", "127.0.0.1", "\(server.port)", on: loop)
        let client = try Client(proxy.port)
        let text = String(repeating: "0123456789", count: 10_000)
        client.send(text)
        client.finish()
        #expect(client.receiveAll() == text)
    }

    @Test(arguments: loops)
    func portScanner(_ loop: String) throws {
        let server = try start("echo", "0", on: loop)
        let line = try LineProcess.run(
            [try Programs.beside("port-scanner"), "127.0.0.1", "\(server.port)-\(server.port)"],
            cpu: nil, environment: ["LOOP_POLICY=\(loop)"], secondsMax: 10)
        #expect(line == "\(server.port)")
    }

    /// The children of a program's main thread, as the kernel lists them.
    private func children(of identifier: Int32) -> [Int32] {
        guard let file = fopen("/proc/\(identifier)/task/\(identifier)/children", "r") else { return [] }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ").compactMap { Int32($0) }
    }

    /// What is killed is started again, and nothing is left at the end.
    @Test(arguments: loops)
    func supervisor(_ loop: String) throws {
        let supervisor = try start("supervisor", "\(try Programs.beside("echo")) 0", on: loop)
        let client = try Client(supervisor.port)
        client.send("still here?")
        client.finish()
        #expect(client.receiveAll() == "still here?")
        let first = try #require(children(of: supervisor.identifier).first)
        kill(first, SIGKILL)
        var second: Int32 = first
        for _ in 0..<1000 where second == first {
            usleep(10_000)  // of the test, which has no way to be told
            second = children(of: supervisor.identifier).first ?? first
        }
        #expect(second != first)
        #expect(supervisor.stop())
        #expect(kill(second, 0) != 0 && errno == ESRCH)
    }
}

/// A blocking client that gives up after ten seconds.
private final class Client {
    private let descriptor: Int32

    init(_ port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw BenchmarkFailure("connect: \(String(cString: strerror(errno)))") }
    }

    deinit { close(descriptor) }

    func send(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let sent = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return }
            bytes = bytes.dropFirst(sent)
        }
    }

    func finish() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Exactly so many bytes, or what came before the end.
    func receive(_ count: Int) -> String {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &bytes, count, Int32(MSG_WAITALL))
        return String(decoding: bytes.prefix(max(0, received)), as: UTF8.self)
    }

    func receiveAll() -> String {
        var all: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let received = recv(descriptor, &bytes, bytes.count, 0)
            if received <= 0 { return String(decoding: all, as: UTF8.self) }
            all += bytes.prefix(received)
        }
    }
}
