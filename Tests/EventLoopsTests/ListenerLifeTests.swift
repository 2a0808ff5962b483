// SPDX-License-Identifier: Apache-2.0
//
// ListenerLifeTests.swift: listeners dropped on threads that are not their loop's, and iterated by hand.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The last reference to a listener.
private final class HeldListener: @unchecked Sendable {
    private var value: Listener?
    init(_ value: Listener) { self.value = value }
    func letGo() { value = nil }
}

@Suite("Lives of listeners", .timeLimit(.minutes(1)))
struct ListenerLifeTests {
    @Test("V7 a listener dropped on another thread while its loop runs is closed", arguments: LoopKind.available)
    func droppedElsewhere(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onLoop(kind) { loop in
            let (held, port) = try {
                let listener = try Listener(on: loop, address: host, port: 0)
                return (HeldListener(listener), listener.address.port)
            }()
            try Peer(to: port, at: host).close()
            try await onThread { held.letGo() }
            try await until("connections are refused", on: loop) {
                do {
                    try Peer(to: port, at: host).close()
                    return false
                } catch { return (error as? IOError)?.errno == ECONNREFUSED }
            }
        }
    }

    @Test("V7 a listener dropped on another thread before its loop runs is closed", arguments: LoopKind.available)
    func droppedBeforeRun(kind: LoopKind) async throws {
        let host = ownHost(kind)
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (held, port) = try {
                let listener = try Listener(on: loop, address: host, port: 0)
                return (HeldListener(listener), listener.address.port)
            }()
            try onJoinedThread { held.letGo() }
            #expect(throws: IOError(errno: ECONNREFUSED, operation: "peer: connect")) {
                _ = try Peer(to: port, at: host)
            }
        }
    }

    @Test("V7 an iterator gives connections one by one, and nil for good after close", arguments: LoopKind.available)
    func iterator(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            var iterator = listener.makeAsyncIterator()
            for number in 1...3 {
                let peer = try Peer(to: listener.address.port)
                let connection = try #require(try await iterator.next())
                try peer.send([UInt8(number)])
                let received = try await connection.readLease()
                #expect(received.spanned == [UInt8(number)])
                await connection.close()
            }
            listener.close()
            #expect(try await iterator.next() == nil)
            #expect(try await iterator.next() == nil)
        }
    }
}
