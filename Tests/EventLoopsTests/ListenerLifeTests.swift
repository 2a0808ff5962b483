// SPDX-License-Identifier: Apache-2.0
//
// ListenerLifeTests.swift: listeners dropped on threads that are not their loop's, and iterated by hand.

import EventLoops
import TestSupportC
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

    @Test("V7 a listener that is closed cannot be started, and keeps nothing", arguments: LoopKind.available)
    func startedClosed(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            weak var listener: Listener?
            weak var captured: Witness?
            try {
                let (kept, witness) = (try Listener(on: loop, port: 0), Witness())
                (listener, captured) = (kept, witness)
                kept.close()
                #expect(throws: LoopError.connectionClosed(operation: "start")) {
                    try kept.start { _ in withExtendedLifetime(witness) {} }
                }
            }()
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            #expect(listener == nil)
            #expect(captured == nil)
        }
    }

    @Test(
        "V7 F27 a forked child that closes or drops its listener leaves the parent's listening", .realKernel("fork"),
        arguments: LoopKind.available)
    func forked(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let listener = try Listener(on: loop, port: 0)
                let child = test_fork_run(
                    { context in
                        Unmanaged<Listener>.fromOpaque(context!).takeUnretainedValue().close()
                        return 0
                    }, Unmanaged.passUnretained(listener).toOpaque())
                #expect(child == 0)
                let address = listener.address
                let peer = try await onThread { try Peer(to: address.port) }
                let connection = try await listener.accept()
                try peer.send([1])
                #expect(try await connection.read(atLeast: 1) == [1])
                await connection.close()
            }
        }
    }
}
