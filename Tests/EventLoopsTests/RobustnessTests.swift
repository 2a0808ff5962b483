// SPDX-License-Identifier: Apache-2.0
//
// RobustnessTests.swift: peers that vanish, descriptors that run out, many connections at once.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private let gone: [Int32] = [EPIPE, ECONNRESET]

@Suite(.timeLimit(.minutes(1)))
struct RobustnessTests {
    // MARK: Peers that reset

    @Test("F5 peers that reset before they are accepted do not stop the listener", arguments: LoopKind.available)
    func resetBeforeAccept(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let reports = Log<String>()
            loop.onUnhandledError = { reports.append("\($1)") }
            let listener = try Listener(on: loop, port: 0)
            for _ in 0..<20 { try Peer(to: listener.address.port).reset() }
            let good = try Peer(to: listener.address.port)
            try good.send([1, 2, 3])
            var served = false
            while !served {
                let connection = try await listener.accept()
                // Some kernels hand out the dead ones too; reading tells.
                do {
                    served = try await connection.read(atLeast: 3) == [1, 2, 3]
                    if served { try await connection.write([4]) }
                } catch {
                    #expect(gone.contains((error as? LoopError).errno))
                }
                await connection.close()
            }
            #expect(try good.receiveToEnd() == [4])
            #expect(reports.all.isEmpty)
            #expect(loop.statistics.connections == 0)
        }
    }

    @Test("F5 a reset while a read waits is its error, and the connection can be closed", arguments: LoopKind.available)
    func resetMidRead(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for waits in [true, false] {
                let (connection, peer) = try await makeConnection(on: loop)
                let read = waits ? loop.spawn { _ = try await connection.read() } : nil
                if waits { try await until("the read waits", on: loop) { loop.waitingOperations == 1 } }
                peer.reset()
                if let read {
                    await #expect(throws: LoopError.io(IOError(errno: ECONNRESET, operation: "read"))) {
                        try await read.value
                    }
                } else {
                    // Before anybody asked, and after an echo could have.
                    #expect(await thrown { _ = try await connection.read() }.errno == ECONNRESET)
                }
                await connection.close()
                #expect(connection.isClosed)
                #expect(loop.waitingOperations == 0)
            }
        }
    }

    @Test(
        "F6 a reset with 10 MB queued: whoever waits is told, the rest is refused, nothing is kept",
        arguments: LoopKind.available)
    func resetMidWrite(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let part = pattern(100_000)
            for _ in 0..<99 { try connection.send(copying: part.span.bytes) }
            let write = loop.spawn { try await connection.write(part) }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            #expect(connection.unsentByteCount > 1_000_000)
            peer.reset()
            #expect(gone.contains(await thrown { try await write.value }.errno))
            #expect(connection.unsentByteCount == 0)
            #expect(loop.statistics.leasedBuffers == 0)
            #expect(gone.contains(await thrown { try await connection.write([1]) }.errno))
            #expect(gone.contains(await thrown { try await connection.flush() }.errno))
            #expect(gone.contains(await thrown { try connection.finishWriting() }.errno))
            await connection.close()
            #expect(connection.isClosed)
        }
    }

    @Test("F6 a polite close whose peer resets comes to an end", arguments: LoopKind.available)
    func resetWhileClosing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            try connection.send(copying: pattern(8 * 1024 * 1024).span.bytes)
            let close = loop.spawn { await connection.close() }
            try await until("the kernel takes no more", on: loop) { loop.waitingOperations > 0 }
            peer.reset()
            try await close.value
            #expect(connection.isClosed)
            #expect(loop.statistics.leasedBuffers == 0)
        }
    }

    /// The default action of SIGPIPE ends the process.
    @Test("F7 writing to a peer that is gone is an error and not the end", arguments: LoopKind.available)
    func sigpipe(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            signal(SIGPIPE, SIG_DFL)
            try await onLoop(named: kind) { loop in
                for way in 0..<3 {
                    let (connection, peer) = try await way == 0 ? makePair(on: loop) : makeConnection(on: loop)
                    if way == 2 { peer.reset() } else { peer.close() }
                    // The first may still be taken; the peer's answer to it is what tells.
                    var failure: LoopError?
                    try await until("a write fails", on: loop) {
                        do { try connection.send(copying: [1].span.bytes) } catch { failure = error as? LoopError }
                        return failure != nil
                    }
                    #expect(gone.contains(failure.errno))
                    // Many buffers at once take another way through the kernel.
                    let (other, otherPeer) = try makePair(on: loop)
                    let (source, sourcePeer) = try makePair(on: loop)
                    otherPeer.close()
                    for _ in 0..<3 {
                        try sourcePeer.send([1])
                        if let bytes = try await source.read() { try? other.send(bytes) }
                        try? other.send(copying: [2].span.bytes)
                    }
                    #expect(gone.contains(await thrown { try await other.flush() }.errno))
                    await connection.close()
                }
            }
        }
    }

    // MARK: Half-closed and slow peers

    @Test("F8 a peer that has finished sending still gets everything", arguments: LoopKind.available)
    func halfClose(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            try peer.send([1])
            try peer.finishWriting()
            #expect(try await connection.readToEnd() == [1])
            let sent = pattern(4 * 1024 * 1024)
            async let received = onThread { try peer.receiveToEnd() }
            try await connection.write(sent)
            await connection.close()
            #expect(difference(try await received, sent) == nil)
        }
    }

    /// Both are there when the loop next looks. Some kernels call a local socket drained once the bytes are taken, and
    /// a receive that goes on by itself then waits for ever for an end that has come already.
    @Test("F62 bytes and the end at the same time, while a read waits", arguments: LoopKind.available)
    func bytesAndEnd(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for way in 0..<6 {
                let (connection, peer) = try await way < 3 ? makePair(on: loop) : makeConnection(on: loop)
                let read = loop.spawn { try await connection.readToEnd() }
                try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                try peer.send([1, 2, 3])
                if way % 3 == 1 { try peer.send([4]) }
                if way % 3 == 2 { peer.close() } else { try peer.finishWriting() }
                try await until("the end is seen by \(way < 3 ? "a local" : "a TCP") connection", on: loop) {
                    loop.waitingOperations == 0
                }
                #expect(try await read.value == (way % 3 == 1 ? [1, 2, 3, 4] : [1, 2, 3]))
                await connection.close()
            }
        }
    }

    /// The same with peers on other threads, which send in small pieces more than one buffer holds, and with more loops
    /// than processors, so that threads are interrupted anywhere.
    @Test("F62 the end is not missed, whenever it comes", arguments: LoopKind.available)
    func endIsNotMissed(kind: LoopKind) async throws {
        let sent = pattern(20_000)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<6 {
                group.addTask {
                    try await onLoop(kind) { loop in
                        for round in 0..<15 {
                            let (connection, peer) = try makePair(on: loop)
                            let read = loop.spawn { try await connection.readToEnd() }
                            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
                            try await onThread {
                                for start in stride(from: 0, to: sent.count, by: 40) {
                                    try peer.send(Array(sent[start..<start + 40]))
                                }
                                try peer.finishWriting()
                            }
                            try await until("round \(round): the end is seen", on: loop) { loop.waitingOperations == 0 }
                            #expect(difference(try await read.value, sent) == nil)
                            await connection.close()
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("F9 all that was queued comes before the end", arguments: LoopKind.available)
    func finishWithPending(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            var sent: [UInt8] = []
            for part in 0..<100 {
                let bytes = pattern(40_000, from: 40_000 * part)
                try connection.send(copying: bytes.span.bytes)
                sent += bytes
            }
            try connection.finishWriting()
            #expect(difference(try await onThread { try peer.receiveToEnd() }, sent) == nil)
            await connection.close()
        }
    }

    @Test(
        "F11 the smallest of send buffers and a slow reader: byte for byte, and bounded", arguments: LoopKind.available)
    func smallBuffers(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 4096)
            var size: Int32 = 1
            setsockopt(connection.descriptor, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
            let sent = pattern(2 * 1024 * 1024)
            async let received = onThread { try peer.receiveToEnd(chunk: 3000) }
            for start in stride(from: 0, to: sent.count, by: 10_000) {
                try await connection.write(Array(sent[start..<min(start + 10_000, sent.count)]))
                #expect(connection.unsentByteCount <= connection.writeHighWaterMark)
            }
            await connection.close()
            #expect(difference(try await received, sent) == nil)
        }
    }

    // MARK: Closing with everything pending

    @Test("F21 closing with a read and a write pending ends both, and the peer sees it", arguments: LoopKind.available)
    func closeWithBothPending(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (connection, peer) = try await makeConnection(on: loop, receiveBuffer: 16 * 1024)
            let read = loop.spawn { _ = try await connection.read() }
            let write = loop.spawn { try await connection.write(pattern(8 * 1024 * 1024)) }
            try await until("both wait", on: loop) { loop.waitingOperations == 2 }
            connection.abort(reset: true)
            await #expect(throws: LoopError.connectionClosed(operation: "read")) { try await read.value }
            await #expect(throws: LoopError.connectionClosed(operation: "write")) { try await write.value }
            try await until("it is closed", on: loop) { connection.isClosed }
            #expect(loop.waitingOperations == 0)
            #expect(throws: IOError(errno: ECONNRESET, operation: "peer: receive")) { _ = try peer.receiveToEnd() }
        }
    }

    @Test(
        "F22 a loop that closes with 1000 connections in flight tells them all and keeps no descriptor",
        arguments: LoopKind.available)
    func closeWithMany(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let kind = try #require(LoopKind(rawValue: kind))
            try raiseDescriptorLimit(to: 2200)
            // What the process opens for itself on the way is there now.
            try await onLoop(kind) { loop in try await loop.sleep(for: .microseconds(1)) }
            let before = openDescriptorCount(of: "socket:")
            let peers = try (0..<1000).map { _ in try Peer.pair() }
            let outcomes = Log<LoopError?>()
            let allEnded = Latch()
            try await onThread {
                let loop = try kind.makeLoop()
                try watch(loop)
                for (index, pair) in peers.enumerated() {
                    let connection = try Connection(adopting: pair.descriptor, on: loop)
                    loop.spawn {
                        outcomes.append(
                            await thrown {
                                if index.isMultiple(of: 2) {
                                    _ = try await connection.read()
                                } else {
                                    try await connection.write(pattern(1024 * 1024))
                                }
                            })
                        if outcomes.all.count == peers.count { allEnded.open() }
                    }
                }
                while loop.waitingOperations < 1000 { try loop.runOnce(.noWait) }
                try loop.close()
            }
            // Their tasks end wherever there is a thread for them.
            #expect(try await onThread { allEnded.wait() })
            #expect(outcomes.all.filter { $0 == .connectionClosed(operation: "read") }.count == 500)
            #expect(outcomes.all.filter { $0 == .connectionClosed(operation: "write") }.count == 500)
            for (index, pair) in peers.enumerated() where index.isMultiple(of: 2) {
                #expect(pair.peer.receiveEnd() == 0)
            }
            for pair in peers { pair.peer.close() }
            #expect(openDescriptorCount(of: "socket:") == before)
        }
    }

    // MARK: Descriptors that run out

    /// Three can be had, eight want to come. No spinning in the meantime, a report for each pause, and on it goes when
    /// one is given back.
    @Test("F1 V5 want of descriptors pauses accepting, is reported, and passes", arguments: LoopKind.available)
    func descriptorsRunOut(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let reports = Log<Int32>()
                loop.onUnhandledError = { reports.append(($1.error as? IOError)?.errno ?? -1) }
                let listener = try Listener(on: loop, port: 0)
                let peers = try (0..<8).map { _ in try Peer(to: listener.address.port) }
                let shortage = try DescriptorShortage(leaving: 3)
                defer { shortage.end() }
                let accepted = Log<Connection>()
                let acceptor = loop.spawn {
                    for try await connection in listener { accepted.append(connection) }
                }
                try await until("it is reported", on: loop) { !reports.all.isEmpty }
                // The runtime, too, may give one back at any time.
                let first = accepted.all.count
                #expect((3...5).contains(first), "accepted first: \(first)")
                #expect(reports.all == [EMFILE], "reports: \(reports.all), pauses: \(loop.statistics.acceptPauses)")

                // It waits, rather than try again and again.
                let passes = loop.statistics.passes
                try await loop.sleep(for: .milliseconds(60))
                #expect(loop.statistics.passes - passes < 40, "passes: \(loop.statistics.passes - passes)")
                #expect(accepted.all.count < 8)

                // Closing one makes room for one.
                await accepted.all[0].close()
                try await until("accepting goes on", on: loop) { accepted.all.count > first }
                #expect(reports.all.allSatisfy { $0 == EMFILE }, "reports: \(reports.all)")
                // So does what others give back, a little later.
                for _ in 0..<5 { shortage.giveOne() }
                try await until("all are accepted", on: loop) { accepted.all.count == 8 }
                let pauses = loop.statistics.acceptPauses
                #expect(reports.all.count <= Int(pauses), "reports: \(reports.all), pauses: \(pauses)")
                for (index, connection) in accepted.all.enumerated() where index > 0 {
                    try await connection.write([UInt8(index)])
                    await connection.close()
                }
                let answers = try peers.map { try $0.receiveToEnd() }
                #expect(answers == (0..<8).map { $0 == 0 ? [] : [UInt8($0)] }, "answers: \(answers)")
                listener.close()
                try await acceptor.value
            }
        }
    }

    /// The same for a listener with a closure.
    @Test("F1 V5 want of descriptors, a listener with a closure", arguments: LoopKind.available)
    func descriptorsRunOutForClosure(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let reports = Log<Int32>()
                loop.onUnhandledError = { reports.append(($1.error as? IOError)?.errno ?? -1) }
                let listener = try Listener(on: loop, port: 0)
                let peers = try (0..<4).map { _ in try Peer(to: listener.address.port) }
                let shortage = try DescriptorShortage(leaving: 2)
                defer { shortage.end() }
                let accepted = Log<Connection>()
                try listener.start { accepted.append($0) }
                try await until("it is reported", on: loop) { !reports.all.isEmpty }
                #expect((2...3).contains(accepted.all.count))
                #expect(reports.all == [EMFILE])
                await accepted.all[0].close()
                await accepted.all[1].close()
                try await until("accepting goes on", on: loop) { accepted.all.count == 4 }
                listener.close()
                for peer in peers { peer.close() }
            }
        }
    }

    // MARK: Peers that are killed

    /// The other end is a process of its own, in the middle of sending and receiving when it is killed: no goodbye.
    @Test(
        "F71 a peer process that is killed: the end or a reset, and everything is given back",
        .realKernel("another process is the peer"),
        arguments: LoopKind.available)
    func peerIsKilled(kind: LoopKind) async throws {
        let ports = Log<UInt16>()
        let listening = Latch()
        async let server: Void = onLoop(kind) { loop in
            let listener = try Listener(on: loop, port: 0)
            ports.append(listener.address.port)
            listening.open()
            try await {
                let connection = try await listener.accept()
                // It begins with its number, then sends for ever, and never reads.
                let start = try await connection.read(atLeast: 4)
                let number = start.prefix(4).reversed().reduce(0) { $0 << 8 | Int32($1) }
                let write = loop.spawn { try await connection.write(pattern(16 * 1024 * 1024)) }
                var total = start.count - 4
                var failure: LoopError?
                do {
                    while let bytes = try await connection.read() {
                        let before = total
                        total += bytes.count
                        if before < 1024 * 1024 && total >= 1024 * 1024 { #expect(kill(number, SIGKILL) == 0) }
                    }
                } catch let error as LoopError {
                    failure = error
                }
                #expect(total >= 1024 * 1024)
                #expect(failure == nil || failure.errno == ECONNRESET)
                #expect(gone.contains(await thrown { try await write.value }.errno))
                await connection.close()
            }()
            try await until("nothing is left", on: loop) { loop.statistics.connections == 0 }
            #expect(loop.statistics.leasedBuffers == 0)
        }
        #expect(try await onThread { listening.wait() })
        await #expect(processExitsWith: .signal(SIGKILL)) { [port = ports.all[0] as UInt16] in
            let peer = try Peer(to: port)
            let number = getpid()
            try peer.send((0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) })
            let bytes = pattern(100_000)
            while true { try peer.send(bytes) }
        }
        try await server
    }

    // MARK: Coming and going

    @Test("F54 200 connections come and go five times, and leave nothing behind", arguments: LoopKind.available)
    func comeAndGo(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try raiseDescriptorLimit(to: 600)
            try await onLoop(named: kind) { loop in
                let listener = try Listener(on: loop, port: 0)
                try listener.start { connection in loop.spawn { try await connection.echo() } }
                // One, so that what is made when first needed is there.
                let first = try Peer(to: listener.address.port)
                first.close()
                try await until("it has gone", on: loop) {
                    loop.statistics.connections == 0 && loop.statistics.delivered > 5
                }
                let descriptors = openDescriptorCount(of: "socket:")
                let (kernel, armed) = (loop.statistics.operationsInKernel, loop.statistics.armedOperations)
                for round in 0..<5 {
                    let peers = try (0..<200).map { _ in try Peer(to: listener.address.port) }
                    for (index, peer) in peers.enumerated() { try peer.send(pattern(100, from: index * 10 + round)) }
                    let answers = try await onThread { try peers.map { try $0.receive(exactly: 100) } }
                    #expect(answers == peers.indices.map { pattern(100, from: $0 * 10 + round) })
                    #expect(loop.statistics.connections == 200)
                    // They leave politely, abruptly, and with something still on its way to them.
                    for (index, peer) in peers.enumerated() {
                        switch index % 3 {
                        case 0: peer.close()
                        case 1: peer.reset()
                        default:
                            try peer.send([1])
                            peer.close()
                        }
                    }
                    try await until("all have gone", on: loop) { loop.statistics.connections == 0 }
                    let statistics = loop.statistics
                    #expect(statistics.leasedBuffers == 0)
                    #expect(statistics.operationsInKernel == kernel)
                    #expect(statistics.armedOperations == armed)
                    #expect(statistics.queuedOperations == 0)
                    #expect(openDescriptorCount(of: "socket:") == descriptors)
                }
            }
        }
    }
}

private func raiseDescriptorLimit(to count: Int) throws {
    var limit = rlimit()
    try check(getrlimit(descriptorLimit, &limit), "getrlimit")
    if limit.rlim_cur < rlim_t(count) {
        limit.rlim_cur = rlim_t(count)
        try check(setrlimit(descriptorLimit, &limit), "setrlimit")
    }
}
