// SPDX-License-Identifier: Apache-2.0
//
// CancelRaceTests.swift: for each operation, its end and a cancel at the same time, many times, in orders drawn from a
// seed. Each wait ends once, with the one or the other; no byte and no connection is lost or doubled; nothing is left.

import Dispatch
import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The operations that a task can wait for.
enum Race: String, CaseIterable, Sendable {
    case read, write, flush, accept, connect, close, sleep, readable, writable
}

@Suite("Cancel races") struct CancelRaceTests {
    @Test(
        "N7 an end and a cancel at the same time: one of them, once, and nothing is lost",
        arguments: LoopKind.available, Race.allCases)
    func race(kind: LoopKind, race: Race) async throws {
        try await onLoop(kind) { loop in
            var cancelled = 0
            for seed in 1...4 {
                let racing = Racing(on: loop, seed: UInt64(seed))
                try await racing.play(race, rounds: 100)
                cancelled += racing.cancelled
            }
            // It was a race: each side won some. No cancel wins against a close.
            #expect(race == .close ? cancelled == 0 : (1..<400).contains(cancelled), "cancelled: \(cancelled)")
        }
    }

    /// In a process of its own all sockets are the test's.
    @Test("N7 races leave no descriptor behind", arguments: LoopKind.available)
    func descriptors(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            // What the process opens for itself on the way is there now.
            try await onLoop(named: kind) { loop in try await Racing(on: loop, seed: 5).play(.read, rounds: 1) }
            let before = openDescriptorCount(of: "socket:")
            try await onLoop(named: kind) { loop in
                let racing = Racing(on: loop, seed: 6)
                for race in Race.allCases {
                    try await racing.play(race, rounds: 40)
                    try await until("\(race) left nothing", on: loop) { openDescriptorCount(of: "socket:") == before }
                }
            }
            #expect(openDescriptorCount(of: "socket:") == before)
        }
    }
}

/// One task's races on one loop.
private final class Racing {
    private let loop: any Loop
    private var random: SeededRandom
    private let elsewhere = DispatchQueue(label: "cancels from elsewhere")
    /// One for each wait that has ended.
    private let ended = Log<Void>()
    private var begun = 0
    private(set) var cancelled = 0

    init(on loop: any Loop, seed: UInt64) {
        self.loop = loop
        random = SeededRandom(state: seed)
    }

    func play(_ race: Race, rounds: Int) async throws {
        let timers = loop.statistics.timers
        switch race {
        case .read: try await read(rounds)
        case .write: try await send(rounds) { try await $0.write($1) }
        case .flush:
            try await send(rounds) {
                try $0.send(copying: $1.span.bytes)
                try await $0.flush()
            }
        case .accept: try await accept(rounds)
        case .connect: try await connect(rounds)
        case .close: try await close(rounds)
        case .sleep: try await sleep(rounds)
        case .readable: try await readable(rounds)
        case .writable: try await writable(rounds)
        }
        #expect(ended.all.count == begun)
        try await until("nothing waits any more", on: loop) {
            loop.statistics.connections == 0 && loop.waitingOperations == 0
        }
        #expect(loop.statistics.leasedBuffers == 0)
        #expect(loop.statistics.timers == timers)
    }

    // MARK: Interleaving

    private func begin(_ wait: @escaping @Sendable () async throws -> Void) -> Task<Void, any Error> {
        begun += 1
        return loop.spawn { [ended] in
            defer { ended.append(()) }
            try await wait()
        }
    }

    /// Some passes.
    private func pause() async {
        for _ in 0..<Int.random(in: 0...3, using: &random) { await Task.yield() }
    }

    /// From here, from a callback, from another thread; twice; or not at all.
    private func cancel(_ task: Task<Void, any Error>) throws {
        switch Int.random(in: 0...5, using: &random) {
        case 0: task.cancel()
        case 1: try loop.callSoon { task.cancel() }
        case 2: elsewhere.async { task.cancel() }
        case 3:
            elsewhere.async { task.cancel() }
            task.cancel()
        case 4: elsewhere.sync { task.cancel() }
        default: break
        }
    }

    /// Lets `event` and a cancel come, in either order, some passes apart or none.
    private func race(_ task: Task<Void, any Error>, _ event: () throws -> Void) async throws {
        await pause()
        if Bool.random(using: &random) {
            try cancel(task)
            await pause()
            try event()
        } else {
            try event()
            await pause()
            try cancel(task)
        }
    }

    /// How the wait ended; anything but its own end and a cancel is the test's failure.
    private func endedByItself(_ task: Task<Void, any Error>) async throws -> Bool {
        do {
            try await task.value
            return true
        } catch LoopError.cancelled(_) {
            cancelled += 1
            return false
        }
    }

    // MARK: The operations

    private func read(_ rounds: Int) async throws {
        let (connection, peer) = try await Bool.random(using: &random) ? makeConnection(on: loop) : makePair(on: loop)
        let received = Log<[UInt8]>()
        var sent = 0
        for _ in 0..<rounds {
            let task = begin { received.append(try await connection.read()?.copy() ?? []) }
            try await race(task) {
                let count = Int.random(in: 1...100, using: &random)
                try peer.send(pattern(count, from: sent))
                sent += count
            }
            _ = try await endedByItself(task)
        }
        var all = received.all.flatMap(\.self)
        all += try await connection.read(atLeast: sent - all.count)
        #expect(difference(all, pattern(sent)) == nil)
        peer.close()
        #expect(try await connection.read() == nil)
        await connection.close()
    }

    /// Whatever becomes of the wait, all that was given to the connection arrives.
    private func send(_ rounds: Int, _ wait: @escaping @Sendable (Connection, [UInt8]) async throws -> Void)
        async throws
    {
        let (connection, peer) = try makePair(on: loop)
        var least: Int32 = 1
        try check(
            setsockopt(
                connection.descriptor, SOL_SOCKET, SO_SNDBUF, &least, socklen_t(MemoryLayout.size(ofValue: least))),
            "setsockopt")
        connection.writeHighWaterMark = 1000
        var received: [UInt8] = []
        var sent = 0
        for _ in 0..<rounds {
            let part = pattern(Int.random(in: 1...20_000, using: &random), from: sent)
            sent += part.count
            let task = begin { try await wait(connection, part) }
            try await race(task) { received += try peer.receiveWhatIsThere() }
            while ended.all.count < begun {
                received += try peer.receiveWhatIsThere()
                await Task.yield()
            }
            _ = try await endedByItself(task)
        }
        while connection.unsentByteCount > 0 {
            received += try peer.receiveWhatIsThere()
            await Task.yield()
        }
        await connection.close()
        received += try peer.receiveToEnd()
        #expect(difference(received, pattern(sent)) == nil)
    }

    private func accept(_ rounds: Int) async throws {
        let listener = try Listener(on: loop, port: 0)
        let accepted = Log<Connection>()
        for round in 0..<rounds {
            let task = begin { accepted.append(try await listener.accept()) }
            let peers = Log<Peer>()
            try await race(task) {
                let peer = try Peer(to: listener.address.port)
                try peer.send([UInt8(truncatingIfNeeded: round)])
                peers.append(peer)
            }
            let wasAccepted = try await endedByItself(task)
            #expect(accepted.all.count == (wasAccepted ? round + 1 : round))
            if !wasAccepted { accepted.append(try await listener.accept()) }
            let connection = accepted.all[round]
            #expect(try await connection.read(atLeast: 1) == [UInt8(truncatingIfNeeded: round)])
            await connection.close()
            #expect(peers.all[0].receiveEnd() == 0)
        }
        listener.close()
    }

    /// One that was cancelled may have been answered, and then the other side sees it come and go.
    private func connect(_ rounds: Int) async throws {
        let listener = try Listener(on: loop, port: 0)
        let accepted = Log<Connection>()
        try listener.start { accepted.append($0) }
        let connected = Log<Connection>()
        var successes = 0
        for _ in 0..<rounds {
            let (loop, port) = (loop, listener.address.port)
            let task = begin { connected.append(try await Connection.connect(to: "127.0.0.1", port: port, on: loop)) }
            try await race(task) {}
            successes += try await endedByItself(task) ? 1 : 0
            #expect(connected.all.count == successes)
        }
        try await until("each of them was accepted", on: loop) { accepted.all.count >= successes }
        for connection in connected.all { try connection.send(copying: [UInt8(1)].span.bytes) }
        for connection in connected.all { await connection.close() }
        // Each of those that came about brings its byte; those that were cancelled bring nothing.
        var bytes = 0
        for connection in accepted.all {
            if let received = try? await connection.readToEnd() { bytes += received.count }
            await connection.close()
        }
        #expect(bytes == successes)
        listener.close()
    }

    /// No cancel shortens a close, or keeps from the peer what was written before it.
    private func close(_ rounds: Int) async throws {
        for round in 0..<rounds {
            let (connection, peer) = try makePair(on: loop)
            let sent = pattern(Int.random(in: 1...50_000, using: &random))
            try connection.send(copying: sent.span.bytes)
            if round.isMultiple(of: 3) { try connection.finishWriting() }
            let task = begin { await connection.close() }
            var received: [UInt8] = []
            try await race(task) { received += try peer.receiveWhatIsThere() }
            #expect(try await endedByItself(task))
            #expect(connection.isClosed)
            received += try peer.receiveToEnd()
            #expect(difference(received, sent) == nil)
        }
    }

    private func sleep(_ rounds: Int) async throws {
        for _ in 0..<rounds {
            let duration = Duration.microseconds(Int.random(in: 0...300, using: &random))
            let (loop, deadline) = (loop, loop.now.advanced(by: duration))
            let task = begin {
                try await loop.sleep(until: deadline)
                #expect(loop.now >= deadline)
            }
            try await race(task) {}
            _ = try await endedByItself(task)
        }
    }

    private func readable(_ rounds: Int) async throws {
        let (near, peer) = try Peer.pair()
        defer { closeDescriptor(near) }
        let loop = loop
        for _ in 0..<rounds {
            let task = begin { try await loop.readable(near) }
            try await race(task) { try peer.send([1]) }
            _ = try await endedByItself(task)
            // The event was not lost with the wait.
            try await loop.readable(near)
            var bytes: [UInt8] = [0, 0]
            #expect(recv(near, &bytes, 2, 0) == 1)
        }
    }

    private func writable(_ rounds: Int) async throws {
        let (near, peer) = try Peer.pair()
        defer { closeDescriptor(near) }
        let loop = loop
        for _ in 0..<rounds {
            let filled = try fill(near)
            let task = begin { try await loop.writable(near) }
            var received = 0
            try await race(task) { while received < filled { received += try peer.receive().count } }
            _ = try await endedByItself(task)
            try await loop.writable(near)
            #expect(received == filled)
        }
    }
}

extension Peer {
    /// What has arrived; nothing if nothing has.
    fileprivate func receiveWhatIsThere() throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 256 * 1024)
        let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        if count < 0 && errno == EAGAIN { return [] }
        return Array(bytes.prefix(try check(count, "receive")))
    }
}

private func closeDescriptor(_ descriptor: Int32) { _ = close(descriptor) }

/// The same draws for the same seed, everywhere (SplitMix64).
struct SeededRandom: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
