// SPDX-License-Identifier: Apache-2.0
//
// ParkingTests.swift: tasks that wait at a connection without the runtime's help, and those that must not.

import EventLoops
import Testing

/// What the tasks of a test share. On the loop's thread.
private final class TwoTasks: @unchecked Sendable {
    var first: Task<Void, any Error>?
    var continuation: UnsafeContinuation<Void, Never>?
    var received: [UInt8]?
    var error: (any Error)?
    var isOver = false
}

/// The last reference to a task, which goes with its cancel.
private final class Cancellable: @unchecked Sendable {
    private var task: Task<Void, any Error>?
    init(_ task: Task<Void, any Error>) { self.task = task }
    func cancel() { task.take()?.cancel() }
}

@Suite("Parking", .timeLimit(.minutes(2)))
struct ParkingTests {
    /// The runtime believes that a parked task still runs. Whoever runs after it must not be taken for it.
    @Test("N2 what runs while tasks are parked is not one of them", arguments: LoopKind.available)
    func currentTask(kind: LoopKind) throws {
        // On a plain thread, where no task of the test's own is around the loop.
        try onJoinedThread {
            let loop = try kind.makeLoop()
            let (connection, peer) = try makePair(on: loop)
            let seen = Journal<Int>()
            loop.spawn {
                seen.note(Self.currentTask)
                _ = try await connection.read()
                seen.note(Self.currentTask)
                loop.stop()
            }
            try loop.runOnce(.noWait)
            try loop.runOnce(.noWait)
            let outside = Self.currentTask
            try loop.callSoon { seen.note(Self.currentTask) }
            try loop.runOnce(.noWait)
            try peer.send([1])
            try loop.run()
            let entries = seen.entries
            #expect(entries.count == 3)
            #expect(entries[0] != 0 && entries[2] == entries[0], "a task stays itself")
            #expect(entries[1] != entries[0], "a callback is not the parked task")
            #expect(outside == 0)
            try loop.close()
        }
    }

    private static var currentTask: Int { withUnsafeCurrentTask { $0?.hashValue ?? 0 } }

    @Test("N7 a parked task that is cancelled learns so, at this wait and at later ones", arguments: LoopKind.available)
    func cancelled(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let errors = Log<LoopError?>()
            let task = loop.spawn {
                errors.append(await thrown { _ = try await connection.read() })
                errors.append(await thrown { _ = try await connection.read() })
            }
            try await until("the task waits", on: loop) { loop.waitingOperations == 1 }
            try onJoinedThread { task.cancel() }
            try await task.value
            #expect(errors.all == [.cancelled(operation: "read"), .cancelled(operation: "read")])
            try peer.send([7])
            #expect(try await connection.read(atLeast: 1) == [7], "no byte is lost")
        }
    }

    @Test("N7 cancelling a task that parks nowhere ends the wait of no other", arguments: LoopKind.available)
    func cancelledElsewhere(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            // Parks once, then sleeps; another task parks at the same connection meanwhile.
            let asleep = Log<Bool>()
            let first = loop.spawn {
                let bytes = try await connection.read(atLeast: 1)
                asleep.append(true)
                #expect(await thrown { try await loop.sleep(for: .seconds(60)) } == .cancelled(operation: "sleep"))
                for _ in 0..<5 { await Task.yield() }  // still there when the cancel has got through
                return bytes
            }
            try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
            try peer.send([1])
            try await until("it sleeps", on: loop) { !asleep.all.isEmpty }
            let second = loop.spawn { try await connection.read(atLeast: 1) }
            try await until("the second waits", on: loop) { loop.waitingOperations == 1 }
            first.cancel()
            #expect(try await first.value == [1])
            try peer.send([2])
            #expect(try await second.value == [2])
        }
    }

    /// Tasks are found by address in a table, where those that go leave holes in the way to others. The table grows
    /// while tasks are parked, and addresses come again.
    @Test(
        "N7 of hundreds of tasks that end in any order, each that is left is found by its cancel",
        arguments: LoopKind.available)
    func manyTasks(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pairs = try (0..<60).map { _ in try makePair(on: loop) }
            var random = SystemRandomNumberGenerator()
            let orders: [(String, ([Int]) -> [Int])] = [
                ("oldest first", { $0 }), ("newest first", { $0.reversed() }),
                ("from the middle", { $0.sorted { abs($0 - 250) < abs($1 - 250) } }),
                ("every other one", { $0.filter { $0 % 2 == 0 } + $0.filter { $0 % 2 == 1 } }),
                ("at random", { $0.shuffled(using: &random) }),
            ]
            for (name, order) in orders {
                let cancelled = Log<Int>()
                // Every eighth parks; the others only fill the table.
                let tasks = (0..<480).map { index in
                    loop.spawn {
                        if index % 8 == 0 {
                            let error = await thrown { _ = try await pairs[index / 8].0.read() }
                            if error == .cancelled(operation: "read") { cancelled.append(index) }
                        } else {
                            try? await loop.sleep(for: .seconds(3600))
                        }
                    }
                }
                try await until("all wait", on: loop) { loop.waitingOperations == 60 }
                for index in order(tasks.indices.filter { $0 % 8 != 0 }) {
                    tasks[index].cancel()
                    _ = await tasks[index].result
                }
                // The last to be cancelled are those that had most of the others go before them.
                let parked = order(tasks.indices.filter { $0 % 8 == 0 })
                for (count, index) in parked.enumerated() {
                    tasks[index].cancel()
                    try await until("\(name): task \(index) is found", on: loop) { cancelled.all.count == count + 1 }
                }
                #expect(cancelled.all == parked)
            }
            withExtendedLifetime(pairs) {}
        }
    }

    @Test("N2 an actor that reads does not go on while somebody else is inside", arguments: LoopKind.available)
    func defaultActor(kind: LoopKind) async throws {
        // A default actor: on the loop's thread because its caller prefers that, with a lock of its own.
        actor Reader {
            let journal = Journal<String>()
            func read(_ connection: Connection) async {
                // Whoever leaves the actor may run what waits for it: on that thread it is refused.
                _ = try? await connection.read()
                journal.note("read")
            }
            func stay(entered: Latch, until leave: Latch) {
                entered.open()
                _ = leave.wait()
                journal.note("left")
            }
        }
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let (witness, other) = try makePair(on: loop)
            let reader = Reader()
            let read = loop.spawn { await reader.read(connection) }
            try await until("the actor reads", on: loop) { loop.waitingOperations == 1 }
            let (entered, leave) = (Latch(), Latch())
            let stay = Task.detached { await reader.stay(entered: entered, until: leave) }
            try #require(entered.wait())
            try peer.send([1])
            // Sent later, received: so the actor's byte is there as well, and was delivered.
            for _ in 0..<3 {
                try other.send([2])
                #expect(try await witness.read(atLeast: 1) == [2])
            }
            leave.open()
            try await read.value
            await stay.value
            #expect(reader.journal.entries == ["left", "read"])
        }
    }

    @Test("N2 children of a task wait at connections, and are cancelled with it", arguments: LoopKind.available)
    func children(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pairs = try (0..<8).map { _ in try makePair(on: loop) }
            let parent = loop.spawn {
                await withTaskGroup { group in
                    for (connection, _) in pairs {
                        group.addTask { await thrown { while try await connection.read() != nil {} } }
                    }
                    return await group.reduce(into: 0) { $0 += $1 == .cancelled(operation: "read") ? 1 : 0 }
                }
            }
            try await until("all wait", on: loop) { loop.waitingOperations == 8 }
            parent.cancel()
            #expect(try await parent.value == 8)
        }
    }

    /// More than the table of tasks begins with, ended in another order than they came.
    @Test("N2 hundreds of tasks park, and each is woken by its own bytes", arguments: LoopKind.available)
    func many(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pairs = try (0..<200).map { _ in try makePair(on: loop) }
            let tasks = pairs.map { connection, _ in loop.spawn { try await connection.read(atLeast: 1) } }
            try await until("all wait", on: loop) { loop.waitingOperations == 200 }
            for index in 0..<200 where !index.isMultiple(of: 3) {
                try pairs[index].1.send([UInt8(index)])
                #expect(try await tasks[index].value == [UInt8(index)])
            }
            // Those that are left are found, although others have left the table.
            for index in stride(from: 0, to: 200, by: 3) {
                tasks[index].cancel()
                #expect(await thrown { _ = try await tasks[index].value } == .cancelled(operation: "read"))
            }
        }
    }

    @Test("E9 tasks that are parked when their loop is closed come to their end", arguments: LoopKind.available)
    func closed(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            let (connection, peer) = try makePair(on: loop)
            let errors = Journal<LoopError?>()
            let end = Latch()
            loop.spawn {
                errors.note(await thrown { _ = try await connection.read() })
                errors.note(await thrown { _ = try await connection.read() })
                end.open()
            }
            try loop.runOnce(.noWait)
            try loop.runOnce(.noWait)
            try loop.close()
            #expect(end.wait())
            #expect(errors.entries.allSatisfy { $0 == .connectionClosed(operation: "read") })
            withExtendedLifetime(peer) {}
        }
    }

    @Test("N7 a late cancel ends no wait of the task that has come in its task's place", arguments: LoopKind.available)
    func lateCancel(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop(options: LoopOptions())
            defer { try? loop.close() }
            for _ in 0..<5 {
                let (connection, peer) = try makePair(on: loop)
                let life = TwoTasks()
                life.first = loop.spawn { await withUnsafeContinuation { life.continuation = $0 } }
                #expect(try loop.pass { life.continuation != nil })
                try loop.callSoon {
                    // In one pass: another thread cancels the task, the task ends, a second one is made where it was. The
                    // cancel's way is by the inbox, so the second task begins before it arrives.
                    try loop.callSoon {
                        let first = Cancellable(life.first.take()!)
                        try onJoinedThread { first.cancel() }
                    }
                    life.continuation?.resume()
                    try loop.callSoon {
                        loop.spawn {
                            do { life.received = try await connection.read()?.copy() } catch { life.error = error }
                            life.isOver = true
                        }
                    }
                }
                for _ in 0..<4 { try loop.runOnce(.noWait) }
                try peer.send([7])
                #expect(try loop.pass { life.isOver })
                #expect(life.error == nil)
                #expect(life.received == [7])
                connection.closeSoon()
            }
        }
    }
}
