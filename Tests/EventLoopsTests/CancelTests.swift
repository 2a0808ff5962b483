// SPDX-License-Identifier: Apache-2.0
//
// CancelTests.swift: cancels that come twice, too late, or from within what they cancel.

import EventLoops
import Testing

@Suite("Cancelling") struct CancelTests {
    // MARK: F19

    @Test(
        "F19 a read that is cancelled twice ends once, and the next one is not cancelled", arguments: LoopKind.available
    )
    func twice(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            let ended = Log<LoopError?>()
            for round in 0..<60 {
                let read = loop.spawn { ended.append(await thrown { _ = try await connection.read() }) }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                read.cancel()
                switch round % 3 {
                case 0: read.cancel()
                case 1: try onJoinedThread { read.cancel() }
                default: try loop.callSoon { read.cancel() }
                }
                // Begun before either cancel has got through.
                let next = loop.spawn {
                    try await read.value
                    return try await connection.read(atLeast: 1)
                }
                try await read.value
                for _ in 0..<3 { await Task.yield() }
                try peer.send([UInt8(round)])
                #expect(try await next.value == [UInt8(round)])
            }
            #expect(ended.all.count == 60)
            #expect(ended.all.allSatisfy { $0 == .cancelled(operation: "read") })
        }
    }

    // MARK: F20

    @Test("F20 cancelling a read that has ended does not reach the next one", arguments: LoopKind.available)
    func finished(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            for round in 0..<60 {
                let first = loop.spawn { try await connection.read(atLeast: 1) }
                try await until("the first waits", on: loop) { loop.waitingOperations == 1 }
                try peer.send([UInt8(round)])
                #expect(try await first.value == [UInt8(round)])
                let second = loop.spawn { try await connection.read(atLeast: 1) }
                for _ in 0..<round % 4 { await Task.yield() }
                first.cancel()
                if round.isMultiple(of: 2) { try onJoinedThread { first.cancel() } }
                for _ in 0..<3 { await Task.yield() }
                try peer.send([UInt8(round)])
                #expect(try await second.value == [UInt8(round)])
            }
        }
    }

    /// A callback comes before what arrives in the same pass. Its cancel is for a read that has its bytes by the time
    /// the cancel gets through, and by then another task reads.
    @Test("F20 a cancel in the pass in which the bytes come takes none of them", arguments: LoopKind.available)
    func samePass(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            var received: [UInt8] = []
            for round in 0..<100 {
                let read = loop.spawn { try await connection.read()?.copy() ?? [] }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                let next = loop.spawn {
                    _ = await read.result
                    return try await connection.read(atLeast: 1)
                }
                await Task.yield()
                // What other threads ask for in this pass is done after what is ready in the next one.
                let elsewhere = round.isMultiple(of: 2)
                try loop.callSoon { if elsewhere { try onJoinedThread { read.cancel() } } else { read.cancel() } }
                try peer.send([UInt8(round)])
                do {
                    received += try await read.value
                } catch LoopError.cancelled(operation: "read") {
                }
                // The next one, in a task that nobody cancelled, waits on.
                for _ in 0..<3 { await Task.yield() }
                try peer.send([255])
                received += try await next.value
            }
            received += try await connection.read(atLeast: 200 - received.count)
            #expect(received.filter { $0 != 255 } == (0..<100).map { UInt8($0) })
            #expect(received.count == 200)
        }
    }

    @Test(
        "F20 a task that cancels itself as its read returns keeps the bytes, and reads no more",
        arguments: LoopKind.available)
    func fromWithin(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try makePair(on: loop)
            for round in 0..<50 {
                let read = loop.spawn {
                    let bytes = try await connection.read(atLeast: 1)
                    // This is the resumption: the loop is still within the delivery of these bytes.
                    withUnsafeCurrentTask { $0?.cancel() }
                    await #expect(throws: LoopError.cancelled(operation: "read")) { _ = try await connection.read() }
                    await #expect(throws: LoopError.cancelled(operation: "sleep")) {
                        try await loop.sleep(for: .seconds(3600))
                    }
                    return bytes
                }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                try peer.send([UInt8(round)])
                #expect(try await read.value == [UInt8(round)])
            }
            #expect(loop.statistics.leasedBuffers == 0)
            try peer.send([50])
            #expect(try await connection.read(atLeast: 1) == [50])
        }
    }

    @Test(
        "F20 whoever is told of a cancel may cancel again, and abort what was waited for", arguments: LoopKind.available
    )
    func fromTheHandler(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for round in 0..<30 {
                let (connection, peer) = try makePair(on: loop)
                let ended = Log<LoopError?>()
                let told = Log<Int>()
                let read = loop.spawn {
                    let task = withUnsafeCurrentTask { Unsafely($0!) }
                    await withTaskCancellationHandler {
                        ended.append(await thrown { _ = try await connection.read() })
                    } onCancel: {
                        told.append(round)
                        task.value.cancel()
                        connection.abort()
                    }
                }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                if round.isMultiple(of: 2) { read.cancel() } else { try onJoinedThread { read.cancel() } }
                try await read.value
                #expect(told.all == [round])
                try #require(ended.all.count == 1)
                #expect([.cancelled(operation: "read"), .connectionClosed(operation: "read")].contains(ended.all[0]))
                try await until("it is closed", on: loop) { connection.isClosed }
                #expect(peer.receiveEnd() == 0)
            }
        }
    }

    @Test("F19 F20 sleeps: cancelled twice, after their end, and as they end", arguments: LoopKind.available)
    func sleeps(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let before = loop.statistics.timers
            for round in 0..<50 {
                let twice = loop.spawn { try await loop.sleep(for: .seconds(3600)) }
                for _ in 0..<round % 3 { await Task.yield() }
                twice.cancel()
                twice.cancel()
                await #expect(throws: LoopError.cancelled(operation: "sleep")) { try await twice.value }
                // The same record serves the next one.
                let short = loop.spawn {
                    try await loop.sleep(for: .microseconds(50))
                    withUnsafeCurrentTask { $0?.cancel() }
                }
                twice.cancel()
                try await short.value
                short.cancel()
                let last = loop.spawn { try await loop.sleep(for: .microseconds(50)) }
                short.cancel()
                try await last.value
            }
            #expect(loop.statistics.timers == before)
        }
    }
}

/// A task as it cancels itself from elsewhere, while it is known to live.
private struct Unsafely: @unchecked Sendable {
    let value: UnsafeCurrentTask
    init(_ value: UnsafeCurrentTask) { self.value = value }
}
