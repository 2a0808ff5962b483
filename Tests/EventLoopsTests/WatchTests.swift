// SPDX-License-Identifier: Apache-2.0
//
// WatchTests.swift: callbacks at descriptors that are not the loop's own.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Reads what there is; returns how many bytes that was.
@discardableResult
private func drain(_ descriptor: Int32) -> Int {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var total = 0
    while true {
        let got = read(descriptor, &bytes, bytes.count)
        if got <= 0 { return total }
        total += got
    }
}

private struct Mishap: Error {}

@Suite(.timeLimit(.minutes(1)))
struct WatchTests {
    @Test("W1 W9 a callback runs in each pass for as long as nobody reads", arguments: LoopKind.available)
    func level(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var count = 0
            let handle = try loop.watch(pipe.readEnd, .read) {
                count += 1
                if count == 3 { #expect(drain(pipe.readEnd) == 1) }
            }
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            #expect(count == 0)
            pipe.fill()
            #expect(try loop.pass { count == 3 })
            for _ in 0..<10 { try loop.runOnce(.noWait) }
            #expect(count == 3)
            // It lasts.
            pipe.fill()
            #expect(try loop.pass { count == 6 })
            #expect(handle.isActive)
            #expect(loop.unwatch(pipe.readEnd, .read))
            let after = count
            for _ in 0..<10 { try loop.runOnce(.noWait) }
            #expect(count == after)
            #expect(loop.waitingOperations == 0)
        }
    }

    /// Both are queued in one pass, and whoever comes first replaces the other.
    @Test("W1 a second watch replaces the first, also one whose event is queued", arguments: LoopKind.available)
    func replaceQueued(kind: LoopKind) async throws {
        try await onThread {
            let pipes = [try PipePair(), try PipePair()]
            defer { for pipe in pipes { pipe.close() } }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var log: [String] = []
            var handles: [WatchHandle] = []
            for (mine, other) in [(0, 1), (1, 0)] {
                pipes[mine].fill()
                handles.append(
                    try loop.watch(pipes[mine].readEnd, .read) {
                        log.append("old")
                        drain(pipes[mine].readEnd)
                        try loop.watch(pipes[other].readEnd, .read) {
                            log.append("new")
                            drain(pipes[other].readEnd)
                        }
                        #expect(handles.map(\.isActive) == (mine == 0 ? [true, false] : [false, true]))
                    })
            }
            #expect(try loop.pass { log.count == 2 })
            for _ in 0..<10 { try loop.runOnce(.noWait) }
            #expect(log == ["old", "new"])
        }
    }

    @Test("W1 the handle of a watch that was replaced reaches nobody", arguments: LoopKind.available)
    func oldHandle(kind: LoopKind) async throws {
        try await onThread {
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            _ = try fill(near)
            var log: [String] = []
            let old = try loop.watch(near, .read) { log.append("old") }
            let write = try loop.watch(near, .write) { log.append("write") }
            try loop.runOnce(.noWait)
            let new = try loop.watch(near, .read) {
                log.append("new")
                drain(near)
            }
            #expect(!old.isActive && new.isActive && write.isActive)
            old.cancel()
            #expect(new.isActive && write.isActive)
            try peer.send([1])
            #expect(try loop.pass { !log.isEmpty })
            #expect(log == ["new"])
            new.cancel()
            #expect(!new.isActive && write.isActive)
            #expect(!loop.unwatch(near, .read))
            #expect(loop.unwatch(near, .write))
            #expect(try loop.pass { loop.waitingOperations == 0 })
        }
    }

    @Test(
        "W2 whether there was a watch is told, and it is over for an event that is queued",
        arguments: LoopKind.available)
    func unwatchQueued(kind: LoopKind) async throws {
        try await onThread {
            let pipes = [try PipePair(), try PipePair()]
            defer { for pipe in pipes { pipe.close() } }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            #expect(!loop.unwatch(pipes[0].readEnd, .read))
            #expect(!loop.unwatch(-1, .read))
            #expect(!loop.unwatch(.max, .write))
            var count = 0
            for (mine, other) in [(0, 1), (1, 0)] {
                pipes[mine].fill()
                try loop.watch(pipes[mine].readEnd, .read) {
                    count += 1
                    #expect(!loop.unwatch(pipes[other].readEnd, .write))
                    #expect(loop.unwatch(pipes[other].readEnd, .read))
                    #expect(!loop.unwatch(pipes[other].readEnd, .read))
                    // And itself.
                    #expect(loop.unwatch(pipes[mine].readEnd, .read))
                }
            }
            #expect(try loop.pass { count > 0 })
            for _ in 0..<10 { try loop.runOnce(.noWait) }
            #expect(count == 1)
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test("W2 what a callback captured is freed with its watch", arguments: LoopKind.available)
    func captures(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            var ends: [String] = []
            func watch(_ name: String) throws {
                let witness = Witness { [log = Box { ends.append(name) }] in log.run() }
                try loop.watch(pipe.readEnd, .read) { withExtendedLifetime(witness) {} }
            }
            try watch("replaced")
            try loop.runOnce(.noWait)
            try watch("unwatched")
            #expect(ends == ["replaced"])
            #expect(loop.unwatch(pipe.readEnd, .read))
            #expect(ends == ["replaced", "unwatched"])
            try watch("closed armed")
            try loop.runOnce(.noWait)
            try loop.close()
            #expect(ends == ["replaced", "unwatched", "closed armed"])
        }
    }

    @Test("W5 a hang-up wakes both directions", arguments: LoopKind.available)
    func hangUp(kind: LoopKind) async throws {
        try await onThread {
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            _ = try fill(near)
            var log: [String] = []
            for (direction, name) in [(WatchDirection.read, "read"), (.write, "write")] {
                try loop.watch(near, direction) {
                    log.append(name)
                    loop.unwatch(near, direction)
                }
            }
            for _ in 0..<3 { try loop.runOnce(.noWait) }
            #expect(log.isEmpty)
            peer.close()
            #expect(try loop.pass { log.count == 2 })
            #expect(Set(log) == ["read", "write"])
        }
    }

    @Test("W1 both directions carry their bytes", arguments: LoopKind.available)
    func transfer(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let total = 1 << 20
            var (sent, received) = (0, 0)
            let bytes = [UInt8](repeating: 7, count: 8192)
            try loop.watch(pipe.writeEnd, .write) {
                sent += max(0, write(pipe.writeEnd, bytes, min(bytes.count, total - sent)))
                if sent == total { loop.unwatch(pipe.writeEnd, .write) }
            }
            try loop.watch(pipe.readEnd, .read) {
                received += drain(pipe.readEnd)
                if received == total { loop.unwatch(pipe.readEnd, .read) }
            }
            try loop.watched { try loop.runUntilIdle() }
            #expect(sent == total && received == total)
        }
    }

    @Test("W1 what a callback throws goes to the hook, and the watch goes on", arguments: LoopKind.available)
    func throwing(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let log = Log<String>()
            loop.onUnhandledError = { _, unhandled in log.append("\(type(of: unhandled.error))") }
            pipe.fill()
            let handle = try loop.watch(pipe.readEnd, .read) { throw Mishap() }
            #expect(try loop.pass { log.all.count == 3 })
            #expect(log.all == ["Mishap", "Mishap", "Mishap"])
            #expect(handle.isActive)
        }
    }

    @Test("F68 W7 files and directories cannot be watched, and keep no loop busy", arguments: LoopKind.available)
    func notPollable(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            for path in ["/proc/self/exe", "/"] {
                let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), "open")
                defer { close(descriptor) }
                for direction in [WatchDirection.read, .write] {
                    #expect(throws: LoopError.notPollable(descriptor: descriptor)) {
                        try loop.watch(descriptor, direction) { Issue.record("it has no readiness") }
                    }
                    #expect(!loop.unwatch(descriptor, direction))
                }
            }
            try loop.watched { try loop.runUntilIdle() }
            #expect(loop.waitingOperations == 0)
        }
    }

    @Test(
        "F68 W7 of devices, only those with readiness can be watched", .realKernel("devices"),
        arguments: LoopKind.available)
    func devices(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let null = try check(open("/dev/null", O_RDWR | O_CLOEXEC), "open")
            defer { close(null) }
            #expect(throws: LoopError.notPollable(descriptor: null)) { try loop.watch(null, .read) {} }
            let random = try check(open("/dev/random", O_RDONLY | O_CLOEXEC), "open")
            defer { close(random) }
            var count = 0
            try loop.watch(random, .read) {
                count += 1
                loop.unwatch(random, .read)
            }
            try loop.watched { try loop.runUntilIdle() }
            #expect(count == 1)
        }
    }

    @Test("W3 W4 what cannot be watched is refused by name", arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for descriptor: Int32 in [-1, 1_000_000] {
                #expect(throws: LoopError.io(IOError(errno: EBADF, operation: "watch"))) {
                    try loop.watch(descriptor, .read) {}
                }
            }
            let (connection, peer) = try makePair(on: loop)
            let number = connection.descriptor
            for direction in [WatchDirection.read, .write] {
                #expect(throws: LoopError.ownedByTransport(descriptor: number)) { try loop.watch(number, direction) {} }
                #expect(!loop.unwatch(number, direction))
            }
            try peer.send([1])
            #expect(try await connection.read(atLeast: 1) == [1])
            await connection.close()
            _ = await Task.detached {
                #expect(throws: LoopError.wrongThread(operation: "watch")) { try loop.watch(0, .read) {} }
            }.value
        }
    }

    @Test("W1 a task that waits and a watch exclude each other", arguments: LoopKind.available)
    func busy(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            defer { close(near) }
            _ = fcntl(near, F_SETFL, O_NONBLOCK)
            let wait = loop.spawn { try await loop.readable(near) }
            try await until("the wait has begun", on: loop) { loop.waitingOperations == 1 }
            #expect(throws: LoopError.busy(operation: "watch")) { try loop.watch(near, .read) {} }
            try peer.send([1])
            try await wait.value
            // Also from within the callback, when the kernel is not asked at all.
            let log = Log<LoopError?>()
            try loop.watch(near, .read) {
                loop.unwatch(near, .write)
                drain(near)
                Task.immediate { log.append(await thrown { try await loop.readable(near) }) }
            }
            try await until("the callback has run", on: loop) { log.all.count == 1 }
            #expect(log.all == [.busy(operation: "readable")])
            await #expect(throws: LoopError.busy(operation: "readable")) { try await loop.readable(near) }
            try await loop.writable(near)
            #expect(loop.unwatch(near, .read))
            try peer.send([2])
            try await loop.readable(near)
        }
    }

    @Test(
        "W8 a descriptor that is closed in its callback ends the watch, and that is told", arguments: LoopKind.available
    )
    func closedInCallback(kind: LoopKind) async throws {
        // Numbers stay closed only where no other test opens descriptors.
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let log = Log<LoopError?>()
                loop.onUnhandledError = { _, unhandled in log.append(unhandled.error as? LoopError) }
                let (near, peer) = try Peer.pair()
                try peer.send([1])
                let handle = try loop.watch(near, .read) { close(near) }
                try await until("it has been told", on: loop) { !log.all.isEmpty }
                #expect(log.all == [.io(IOError(errno: EBADF, operation: "watch"))])
                #expect(!handle.isActive)
                #expect(!loop.unwatch(near, .read))
                #expect(loop.waitingOperations == 0)
            }
        }
    }

    @Test("W10 a closed loop watches nothing, and does not begin to", arguments: LoopKind.available)
    func closed(kind: LoopKind) async throws {
        try await onThread {
            let pipe = try PipePair()
            defer { pipe.close() }
            let loop = try kind.makeLoop()
            pipe.fill()
            let handle = try loop.watch(pipe.readEnd, .read) { Issue.record("the loop never ran") }
            try loop.close()
            #expect(!handle.isActive)
            handle.cancel()
            #expect(!loop.unwatch(pipe.readEnd, .read))
            #expect(throws: LoopError.closed) { try loop.watch(pipe.readEnd, .read) {} }
        }
    }
}

/// Runs a closure that is not sendable where nothing is sent.
private final class Box: @unchecked Sendable {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}
