// SPDX-License-Identifier: Apache-2.0
//
// EchoTests.swift: servers written with async and await: what they serve, and that they stay on their loop's thread.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct EchoTests {
    /// Each await of a server is a chance to end up on another thread. Clients sit on threads of their own, so that
    /// everything the server does begins with an event.
    @Test(
        "N2 a server stays on its loop's thread: before and after each await, in tasks and in their child tasks",
        arguments: LoopKind.available)
    func staysOnThread(kind: LoopKind) async throws {
        let (clients, rounds) = (4, 50)
        let echoed = try await onLoop(kind) { loop in
            let thread = threadID()
            let listener = try Listener(on: loop, port: 0)
            let port = listener.address.port

            async let served: Int = withThrowingTaskGroup(of: Int.self) { group in
                #expect(threadID() == thread)
                var accepted = 0
                for try await connection in listener {
                    #expect(threadID() == thread)
                    group.addTask { try await serve(connection, on: loop, thread) }
                    accepted += 1
                    if accepted == clients { listener.close() }
                }
                #expect(threadID() == thread)
                return try await group.reduce(0, +)
            }
            let exchanges = (0..<clients).map { client in
                loop.spawn {
                    try await onThread {
                        #expect(threadID() != thread)
                        let peer = try Peer(to: port)
                        for round in 0..<rounds {
                            let bytes = pattern(100 + round, from: client * 50)
                            try peer.send(bytes)
                            #expect(try peer.receive(exactly: bytes.count) == bytes)
                        }
                        try peer.finishWriting()
                        #expect(try peer.receiveToEnd().isEmpty)
                    }
                    #expect(threadID() == thread)
                }
            }
            for exchange in exchanges { try await exchange.value }
            let total = try await served
            #expect(threadID() == thread)
            return total
        }
        #expect(echoed == clients * (0..<rounds).reduce(0) { $0 + 100 + $1 })
    }

    /// A hop would wake the loop from another thread. Nobody else knows this loop, so nobody may wake it.
    @Test("N2 tasks that are on the loop already do not wake it", arguments: LoopKind.available)
    func noWakes(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let before = loop.statistics.wakes
            for _ in 0..<100 {
                await Task.yield()
                async let child = threadID()
                let (own, of) = (threadID(), await child)
                #expect(own == of)
                _ = try await loop.spawn { try await loop.sleep(for: .microseconds(10)) }.value
            }
            #expect(loop.statistics.wakes == before)
        }
    }

    @Test("N2 many connections at once, each with bytes of its own", arguments: LoopKind.available)
    func manyConnections(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            let server = loop.spawn {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for try await connection in listener { group.addTask { try await connection.echo() } }
                    try await group.waitForAll()
                }
            }
            let peers = try (0..<100).map { _ in try Peer(to: listener.address.port) }
            for round in 0..<3 {
                for (index, peer) in peers.enumerated() { try peer.send(pattern(50 + index, from: round)) }
                let answers = loop.spawn {
                    try await onThread {
                        try peers.indices.map { try peers[$0].receive(exactly: 50 + $0) }
                    }
                }
                let expected = peers.indices.map { pattern(50 + $0, from: round) }
                #expect(try await answers.value == expected)
            }
            listener.close()
            for peer in peers { peer.close() }
            try await server.value
            #expect(loop.statistics.connections == 0)
        }
    }
}

private func serve(_ connection: Connection, on loop: any Loop, _ thread: Int) async throws -> Int {
    #expect(threadID() == thread)
    var count = 0
    while let bytes = try await connection.read() {
        #expect(threadID() == thread)
        count += bytes.count
        async let child = {
            await Task.yield(); return threadID()
        }()
        #expect(await child == thread)
        try await connection.write(bytes)
        #expect(threadID() == thread)
        await Task.yield()
        #expect(threadID() == thread)
    }
    try await loop.sleep(for: .milliseconds(1))
    #expect(threadID() == thread)
    try await connection.flush()
    #expect(threadID() == thread)
    await connection.close()
    #expect(threadID() == thread)
    return count
}
