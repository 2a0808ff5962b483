// SPDX-License-Identifier: Apache-2.0
//
// ReadinessTests.swift: waiting for descriptors that are not the loop's own.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(1)))
struct ReadinessTests {
    /// The loop says so again and again, as long as nobody reads.
    @Test("W1 a descriptor stays readable until it is read", arguments: LoopKind.available)
    func level(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            try peer.send([1, 2])
            for _ in 0..<3 { try await loop.readable(near) }
            var bytes: [UInt8] = [0, 0]
            #expect(read(near, &bytes, 2) == 2)
            #expect(bytes == [1, 2])
            // Now it is not, until something else arrives.
            let wait = loop.spawn { try await loop.readable(near) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            try peer.send([3])
            try await wait.value
            #expect(read(near, &bytes, 2) == 1)
            #expect(bytes[0] == 3)
        }
    }

    @Test(
        "W1 both directions of a descriptor can be waited for, and do not disturb each other",
        arguments: LoopKind.available)
    func bothDirections(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            // Full, so that neither direction is ready.
            let filled = try fill(near)
            let log = Log<String>()
            let reader = loop.spawn {
                try await loop.readable(near); log.append("readable")
            }
            let writer = loop.spawn {
                try await loop.writable(near); log.append("writable")
            }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            try peer.send([1])
            try await reader.value
            #expect(log.all == ["readable"])
            #expect(try peer.receive(exactly: filled).count == filled)
            try await writer.value
            #expect(log.all == ["readable", "writable"])
        }
    }

    @Test("W5 a hang-up ends the waits of both directions", arguments: LoopKind.available)
    func hangUp(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            _ = try fill(near)
            let reader = loop.spawn { try await loop.readable(near) }
            let writer = loop.spawn { try await loop.writable(near) }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            peer.close()
            try await reader.value
            try await writer.value
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("W5 an end of input is readable", arguments: LoopKind.available)
    func endOfInput(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var ends: [Int32] = [-1, -1]
            try check(pipe(&ends), "pipe")
            defer { close(ends[0]) }
            let descriptor = ends[0]
            let wait = loop.spawn { try await loop.readable(descriptor) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            close(ends[1])
            try await wait.value
            var byte: UInt8 = 0
            #expect(read(ends[0], &byte, 1) == 0)
        }
    }

    /// Several wait for one event in turn; all but the first are told of nothing. The interface is a wait for *may be*,
    /// and a descriptor that another one emptied in between blocks nobody.
    @Test("W6 after a wake-up that came to nothing the next wait waits", arguments: LoopKind.available)
    func spurious(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            _ = fcntl(near, F_SETFL, O_NONBLOCK)
            try peer.send([1])
            try await loop.readable(near)
            var byte: UInt8 = 0
            #expect(read(near, &byte, 1) == 1)
            #expect(read(near, &byte, 1) == -1)
            #expect(errno == EAGAIN)
            let wait = loop.spawn { try await loop.readable(near) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            // Passes come and go, and the wait goes on.
            for _ in 0..<5 { try await loop.sleep(for: .microseconds(100)) }
            #expect(loop.waitingOperations == 1)
            try peer.send([2])
            try await wait.value
        }
    }

    @Test("W7 regular files and directories have no readiness", arguments: LoopKind.available)
    func notPollable(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for path in ["/proc/self/exe", "/"] {
                let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), "open")
                defer { close(descriptor) }
                await #expect(throws: LoopError.notPollable(descriptor: descriptor)) {
                    try await loop.readable(descriptor)
                }
                await #expect(throws: LoopError.notPollable(descriptor: descriptor)) {
                    try await loop.writable(descriptor)
                }
            }
            // Refused is refused: nothing is left behind that keeps the loop busy.
            #expect(loop.waitingOperations == 0)
        }
    }

    /// epoll refuses this one too; a ring would call it ready.
    @Test(
        "W7 a device without readiness is refused, one with readiness is not", .realKernel("devices"),
        arguments: LoopKind.available)
    func devices(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let null = try check(open("/dev/null", O_RDWR | O_CLOEXEC), "open")
            defer { close(null) }
            await #expect(throws: LoopError.notPollable(descriptor: null)) { try await loop.readable(null) }
            let random = try check(open("/dev/random", O_RDONLY | O_CLOEXEC), "open")
            defer { close(random) }
            try await loop.readable(random)
        }
    }

    @Test("W3 a number that is no descriptor is an error", arguments: LoopKind.available)
    func badDescriptor(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            #expect(await thrown { try await loop.readable(-1) }.errno == EBADF)
            #expect(await thrown { try await loop.writable(1_000_000) }.errno == EBADF)
        }
    }

    @Test("W4 descriptors of connections and listeners cannot be waited for", arguments: LoopKind.available)
    func owned(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let number = connection.descriptor
            await #expect(throws: LoopError.ownedByTransport(descriptor: number)) { try await loop.readable(number) }
            await #expect(throws: LoopError.ownedByTransport(descriptor: number)) { try await loop.writable(number) }
            // The connection did not notice.
            try peer.send([1])
            #expect(try await connection.read(atLeast: 1) == [1])
            await connection.close()
        }
    }

    @Test("W1 one wait per direction", arguments: LoopKind.available)
    func busy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            let first = loop.spawn { try await loop.readable(near) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            await #expect(throws: LoopError.busy(operation: "readable")) { try await loop.readable(near) }
            try await loop.writable(near)
            try peer.send([1])
            try await first.value
        }
    }

    @Test("W2 a wait that is cancelled ends at once, and makes room for the next", arguments: LoopKind.available)
    func cancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            for _ in 0..<50 {
                let wait = loop.spawn { try await loop.readable(near) }
                try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
                wait.cancel()
                await #expect(throws: LoopError.cancelled(operation: "readable")) { try await wait.value }
                #expect(loop.waitingOperations == 0)
            }
            // Cancelled before it began.
            let early = loop.spawn { try await loop.readable(near) }
            early.cancel()
            await #expect(throws: LoopError.cancelled(operation: "readable")) { try await early.value }
            try peer.send([1])
            try await loop.readable(near)
        }
    }

    /// The wait must end with the event or with the cancel, exactly once; what is left does not disturb the next one.
    @Test("N7 W2 an event and a cancel in the same pass", arguments: LoopKind.available)
    func cancelRace(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            for round in 0..<200 {
                let wait = loop.spawn { try await loop.readable(near) }
                try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
                if round.isMultiple(of: 2) { wait.cancel() }
                try peer.send([1])
                if !round.isMultiple(of: 2) { wait.cancel() }
                let error = await thrown { try await wait.value }
                #expect(error == nil || error == .cancelled(operation: "readable"))
                try await loop.readable(near)
                var byte: UInt8 = 0
                #expect(read(near, &byte, 1) == 1)
                #expect(loop.waitingOperations == 0)
            }
        }
    }

    /// The user closes a descriptor that is waited for, and another one gets its number. The kernel forgets the old one
    /// without a word; what happens to the new one is none of the old wait's business.
    @Test(
        "W8 a number that is used again does not end the wait for its predecessor, and can be waited for itself",
        arguments: LoopKind.available)
    func reuse(kind: LoopKind) async throws {
        // Numbers can be chosen only where no other test opens descriptors.
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                for _ in 0..<20 {
                    let (old, oldPeer) = try Peer.pair()
                    let (other, peer) = try Peer.pair()
                    let log = Log<String>()
                    let wait = loop.spawn {
                        try await loop.readable(old); log.append("old")
                    }
                    try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
                    close(old)
                    #expect(fcntl(other, F_DUPFD_CLOEXEC, old) == old)
                    close(other)
                    try peer.send([1])
                    for _ in 0..<3 { try await loop.sleep(for: .microseconds(100)) }
                    #expect(log.all.isEmpty)
                    wait.cancel()
                    await #expect(throws: LoopError.cancelled(operation: "readable")) { try await wait.value }
                    try await loop.readable(old)
                    var byte: UInt8 = 0
                    #expect(read(old, &byte, 1) == 1)
                    close(old)
                    oldPeer.close()
                }
            }
        }
    }

    @Test("W10 waits end with their loop", arguments: LoopKind.available)
    func loopCloses(kind: LoopKind) async throws {
        let (near, peer) = try Peer.pair()
        defer { close(near) }
        let wait = try await onLoop(kind) { loop in
            let wait = loop.spawn { try await loop.readable(near) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            return wait
        }
        await #expect(throws: LoopError.closed) { try await wait.value }
        withExtendedLifetime(peer) {}
    }

    @Test("F46 X7 waiting belongs on the loop's thread", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            await Task.detached {
                await #expect(throws: LoopError.wrongThread(operation: "poll")) { try await loop.readable(0) }
                await #expect(throws: LoopError.wrongThread(operation: "poll")) { try await loop.writable(0) }
            }.value
        }
    }
}

/// Sends until the kernel takes no more; returns how much it took.
func fill(_ descriptor: Int32) throws -> Int {
    _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    let bytes = [UInt8](repeating: 0, count: 4096)
    var total = 0
    while true {
        let sent = send(descriptor, bytes, bytes.count, 0)
        if sent < 0 { return total }
        total += sent
    }
}
