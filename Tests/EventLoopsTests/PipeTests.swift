// SPDX-License-Identifier: Apache-2.0
//
// PipeTests.swift: pipes, and what is used as one, that a loop reads and writes.

import CLoopCore
import EventLoops
import TestSupportC
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The ends of a new pipe. They block, until a loop adopts them.
func makePipe() throws -> (read: Int32, write: Int32) {
    var (readEnd, writeEnd) = (Int32(-1), Int32(-1))
    let result = lc_pipe_make(&readEnd, &writeEnd)
    if result < 0 { throw IOError(errno: result, operation: "pipe") }
    return (readEnd, writeEnd)
}

/// Makes both ends the loop's.
func adoptPipe(on loop: any Loop) throws -> (PipeReader, PipeWriter) {
    let ends = try makePipe()
    return (try loop.adoptPipe(read: ends.read), try loop.adoptPipe(write: ends.write))
}

func isOpen(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

@Suite(.timeLimit(.minutes(1)), .realKernel("pipes"))
struct PipeTests {
    // MARK: Reading

    @Test("B1 a pipe is read as bytes come, and to its end", arguments: LoopKind.available)
    func read(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ends = try makePipe()
            let reader = try loop.adoptPipe(read: ends.read)
            #expect(fcntl(ends.read, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(ends.read, F_GETFD) & FD_CLOEXEC != 0)
            let read = loop.spawn { try await reader.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            #expect(write(ends.write, "abc", 3) == 3)
            let first = try await read.value
            #expect(first == Array("abc".utf8))
            #expect(write(ends.write, "defg", 4) == 4)
            let second = try await reader.read(atMost: 2)
            let third = try await reader.read()
            #expect(second == Array("de".utf8) && third == Array("fg".utf8))
            let last = loop.spawn { try await reader.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            close(ends.write)
            for end in [try await last.value, try await reader.read()] { #expect(end == nil) }
            reader.close()
            #expect(reader.isClosed)
            reader.close()
            let refused = await thrown { _ = try await reader.read() }
            #expect(refused == .connectionClosed(operation: "read"))
            try await until("nothing waits", on: loop) { loop.waitingOperations == 0 }
        }
    }

    @Test("B1 what is no pipe, socket or character device is refused, and stays open", arguments: LoopKind.available)
    func refusals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for path in ["/proc/self/exe", "/"] {
                let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), "open")
                defer { close(descriptor) }
                #expect(throws: LoopError.notPollable(descriptor: descriptor)) { try loop.adoptPipe(read: descriptor) }
                #expect(throws: LoopError.notPollable(descriptor: descriptor)) { try loop.adoptPipe(write: descriptor) }
                #expect(isOpen(descriptor))
            }
            let counter = try check(test_eventfd(0), "eventfd")
            let ends = try makePipe()
            defer { for descriptor in [counter, ends.read, ends.write] { close(descriptor) } }
            for descriptor in [counter, ends.write] {
                let refused = await thrown { _ = try loop.adoptPipe(read: descriptor) }
                #expect(refused.errno == EINVAL)
                #expect("\(refused!)".contains("descriptor \(descriptor)"))
            }
            let refused = await thrown { _ = try loop.adoptPipe(write: ends.read) }
            #expect(refused.errno == EINVAL)
            let closed = await thrown { _ = try loop.adoptPipe(write: -1) }
            #expect(closed.errno == EBADF)
            for descriptor in [counter, ends.read, ends.write] { #expect(isOpen(descriptor)) }
        }
    }

    @Test("B1 B2 a socket and a device can be read and written like a pipe", arguments: LoopKind.available)
    func others(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (near, peer) = try Peer.pair()
            let writer = try loop.adoptPipe(write: near)
            try await writer.write([1, 2, 3])
            #expect(try peer.receive(exactly: 3) == [1, 2, 3])
            let null = try loop.adoptPipe(read: try check(open("/dev/null", O_RDWR), "open"))
            let end = try await null.read()
            #expect(end == nil)
            let sink = try loop.adoptPipe(write: try check(open("/dev/null", O_RDWR), "open"))
            try await sink.write(pattern(3 << 20))
            try await sink.flush()
            await sink.close()
            peer.close()
            // A child that another test starts right now holds a copy until it executes.
            try await writer.waitForReaderToLeave()
            let refused = await thrown { try await writer.write([4]) }
            #expect(refused.errno == EPIPE)
        }
    }

    @Test("B1 a source that never runs dry leaves others their turn", arguments: LoopKind.available)
    func turns(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let zero = try loop.adoptPipe(read: try check(open("/dev/zero", O_RDONLY), "open"))
            let (reader, writer) = try adoptPipe(on: loop)
            for source in [zero, reader] {
                let turns = Log<Int>()
                let other = loop.spawn {
                    for turn in 0..<3 {
                        turns.append(turn)
                        try await loop.sleep(for: .zero)
                    }
                }
                var reads = 0
                while turns.all.count < 3, reads < 1000 {
                    if source === reader { try await writer.write([1]) }
                    _ = try await source.read(atMost: 1)
                    reads += 1
                }
                #expect(turns.all.count == 3)
                try await other.value
            }
        }
    }

    @Test("B1 the end of a terminal's other side is the end", arguments: LoopKind.available)
    func terminal(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let terminal = try check(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "open")
            var locked: Int32 = 0
            try check(ioctl(terminal, 0x4004_5431, &locked), "TIOCSPTLCK")
            let reader = try loop.adoptPipe(read: terminal)
            var number: Int32 = 0
            try check(ioctl(terminal, 0x8004_5430, &number), "TIOCGPTN")
            let program = try check(open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC), "open the terminal")
            #expect(write(program, "abc", 3) == 3)
            let bytes = try await reader.read()
            #expect(bytes == Array("abc".utf8))
            let last = loop.spawn { try await reader.read() }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            close(program)
            let end = try await last.value
            #expect(end == nil)
        }
    }

    @Test(
        "B1 a cancelled read loses nothing, one at a time may wait, and a close ends it", arguments: LoopKind.available)
    func endsOfReads(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (reader, writer) = try adoptPipe(on: loop)
            let first = loop.spawn { await thrown { _ = try await reader.read() } }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            let busy = await thrown { _ = try await reader.read() }
            #expect(busy == .busy(operation: "read"))
            let alsoBusy = await thrown { _ = try await reader.readToEnd() }
            #expect(alsoBusy == .busy(operation: "readToEnd"))
            first.cancel()
            let cancelled = try await first.value
            #expect(cancelled == .cancelled(operation: "read"))
            try await until("nothing waits", on: loop) { loop.waitingOperations == 0 }
            try await writer.write(Array("abc".utf8))
            let bytes = try await reader.read()
            #expect(bytes == Array("abc".utf8))

            let collecting = loop.spawn { await thrown { _ = try await reader.readToEnd() } }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            try await writer.write(Array("def".utf8))
            collecting.cancel()
            #expect(try await collecting.value == .cancelled(operation: "readToEnd"))
            let rest = try await reader.read()
            #expect(rest == Array("def".utf8))

            let last = loop.spawn { await thrown { _ = try await reader.read() } }
            try await until("the read waits", on: loop) { loop.waitingOperations == 1 }
            reader.close()
            let closed = try await last.value
            #expect(closed == .connectionClosed(operation: "read"))
        }
    }

    @Test("B1 everything is read to the end, or to the most that is allowed", arguments: LoopKind.available)
    func toEnd(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let sent = pattern(700_001)
            let (reader, writer) = try adoptPipe(on: loop)
            try writer.send(copying: sent.span.bytes)
            writer.closeSoon()
            let received = try await reader.readToEnd()
            #expect(difference(received, sent) == nil)

            let (bounded, source) = try adoptPipe(on: loop)
            try await source.write(pattern(1000))
            await source.close()
            let refused = await thrown { _ = try await bounded.readToEnd(maximumBytes: 999) }
            #expect(refused.errno == EMSGSIZE)
            let rest = try await bounded.readToEnd(maximumBytes: 1000)
            #expect(rest == pattern(1000))
        }
    }

    // MARK: Writing

    @Test("B2 what the pipe has no room for is queued, and a close writes it first", arguments: LoopKind.available)
    func queue(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let sent = pattern(1 << 20)
            let (reader, writer) = try adoptPipe(on: loop)
            try await writer.write([])
            try writer.send(copying: sent.span.bytes)
            #expect(writer.unsentByteCount > 0)
            // Above the mark, a write waits.
            let before = writer.unsentByteCount
            let write = loop.spawn { try await writer.write([1, 2, 3]) }
            try await until("the write is queued", on: loop) { writer.unsentByteCount == before + 3 }
            let close = loop.spawn {
                try await write.value
                await writer.close()
            }
            let received = try await reader.readToEnd()
            #expect(difference(received, sent + [1, 2, 3]) == nil)
            try await close.value
            #expect(writer.isClosed && writer.unsentByteCount == 0)
            let refused = await thrown { try await writer.write([4]) }
            #expect(refused == .connectionClosed(operation: "write"))
            try await until("nothing waits", on: loop) { loop.waitingOperations == 0 }
        }
    }

    @Test(
        "B2 a cancelled write has queued its bytes, and a writer that is dropped writes them",
        arguments: LoopKind.available)
    func cancelledWrite(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let sent = pattern(300_000)
            let (reader, dropped) = try adoptPipe(on: loop)
            let write = loop.spawn { [dropped] in await thrown { try await dropped.write(sent) } }
            try await until("the write waits", on: loop) { loop.waitingOperations == 1 }
            write.cancel()
            #expect(try await write.value == .cancelled(operation: "write"))
            _ = consume dropped
            let received = try await reader.readToEnd()
            #expect(difference(received, sent) == nil)
        }
    }

    @Test("B2 an abort drops what is queued", arguments: LoopKind.available)
    func abort(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (reader, writer) = try adoptPipe(on: loop)
            try writer.send(copying: pattern(1 << 20).span.bytes)
            let queued = writer.unsentByteCount
            #expect(queued > 0)
            let flush = loop.spawn { await thrown { try await writer.flush() } }
            try await loop.sleep(for: .zero)
            writer.abort()
            #expect(try await flush.value == .connectionClosed(operation: "flush"))
            let received = try await reader.readToEnd()
            #expect(received.count == (1 << 20) - queued)
        }
    }

    @Test("B2 F7 once the reader has left, writing is an error and raises no SIGPIPE", arguments: LoopKind.available)
    func readerLeft(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            signal(SIGPIPE, SIG_DFL)
            try await onLoop(named: kind) { loop in
                let (reader, writer) = try adoptPipe(on: loop)
                let (otherReader, waiting) = try adoptPipe(on: loop)
                let write = loop.spawn { await thrown { try await waiting.write(pattern(1 << 20)) } }
                try await until("the write waits", on: loop) { waiting.unsentByteCount > 0 }
                otherReader.close()
                let ended = try await write.value
                #expect(ended == .io(IOError(errno: EPIPE, operation: "write to a pipe")))
                #expect(waiting.unsentByteCount == 0)
                reader.close()
                for _ in 0..<2 {
                    let refused = await thrown { try await writer.write([1]) }
                    #expect(refused.errno == EPIPE)
                }
                await writer.close()
                await waiting.close()
            }
        }
    }

    @Test("B2 a SIGPIPE that somebody else has pending is left alone", arguments: LoopKind.available)
    func pendingSignal(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var (set, before, pending) = (sigset_t(), sigset_t(), sigset_t())
            sigemptyset(&set)
            sigaddset(&set, SIGPIPE)
            pthread_sigmask(SIG_BLOCK, &set, &before)
            defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
            let ends = try makePipe()
            close(ends.read)
            let writer = try loop.adoptPipe(write: ends.write)
            try await writer.waitForReaderToLeave()
            #expect(throws: (any Error).self) { try writer.send(copying: [1].span.bytes) }
            sigpending(&pending)
            #expect(sigismember(&pending, SIGPIPE) == 0)
            let other = try makePipe()
            close(other.read)
            pthread_kill(pthread_self(), SIGPIPE)
            let second = try loop.adoptPipe(write: other.write)
            try await second.waitForReaderToLeave()
            #expect(throws: (any Error).self) { try second.send(copying: [1].span.bytes) }
            sigpending(&pending)
            #expect(sigismember(&pending, SIGPIPE) == 1)
            var none = timespec()
            #expect(sigtimedwait(&set, nil, &none) == SIGPIPE)
        }
    }

    @Test("B2 who has nothing to write can wait for the reader to leave", arguments: LoopKind.available)
    func waitForReader(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (reader, writer) = try adoptPipe(on: loop)
            let first = loop.spawn { try await writer.waitForReaderToLeave() }
            let cancelled = loop.spawn { await thrown { try await writer.waitForReaderToLeave() } }
            try await until("they wait", on: loop) { loop.waitingOperations == 1 }
            cancelled.cancel()
            #expect(try await cancelled.value == .cancelled(operation: "waitForReaderToLeave"))
            try await writer.write([1])
            _ = try await reader.read()
            #expect(loop.waitingOperations == 1)
            reader.close()
            try await first.value
            try await writer.waitForReaderToLeave()
            await writer.close()
            let refused = await thrown { try await writer.waitForReaderToLeave() }
            #expect(refused == .connectionClosed(operation: "waitForReaderToLeave"))

            let (_, closed) = try adoptPipe(on: loop)
            let last = loop.spawn { await thrown { try await closed.waitForReaderToLeave() } }
            try await loop.sleep(for: .zero)
            closed.abort()
            let ended = try await last.value
            #expect(ended == nil || ended == .connectionClosed(operation: "waitForReaderToLeave"))
        }
    }

    // MARK: The loop

    @Test("B1 B2 a closed loop ends waits and closes pipes", arguments: LoopKind.available)
    func closedLoop(kind: LoopKind) async throws {
        let tasks = try await onThread {
            let loop = try kind.makeLoop()
            let ends = try makePipe()
            let (reader, writer) = try adoptPipe(on: loop)
            let idle = try loop.adoptPipe(read: ends.read)
            let errors = [
                loop.spawn { await thrown { _ = try await reader.read() } },
                loop.spawn {
                    await thrown { _ = try await idle.read() }
                },
            ]
            let full = try makePipe()
            let blocked = try loop.adoptPipe(write: full.write)
            let write = loop.spawn { await thrown { try await blocked.write(pattern(1 << 20)) } }
            #expect(try loop.pass { loop.waitingOperations == 3 })
            try loop.close()
            #expect(reader.isClosed && writer.isClosed && idle.isClosed && blocked.isClosed)
            for descriptor in [ends.write, full.read] { close(descriptor) }
            #expect(throws: LoopError.closed) { try writer.send(copying: [1].span.bytes) }
            #expect(throws: LoopError.closed) { try loop.adoptPipe(read: 0) }
            return errors + [write]
        }
        for task in tasks {
            let error = try await task.value
            #expect(error == .closed)
        }
    }

    @Test("B1 B2 pipes belong to their loop's thread", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (reader, writer) = try adoptPipe(on: loop)
            let errors = await Task.detached {
                [
                    await thrown { _ = try await reader.read() }, await thrown { try await writer.write([1]) },
                    await thrown { _ = try loop.adoptPipe(read: 0) },
                ]
            }.value
            #expect(
                errors == [
                    .wrongThread(operation: "read"), .wrongThread(operation: "write"),
                    .wrongThread(operation: "adoptPipe"),
                ])
            // These may come from anywhere.
            await Task.detached {
                reader.close()
                writer.closeSoon()
            }.value
            try await until("both are closed", on: loop) { reader.isClosed && writer.isClosed }
        }
    }

    @Test("B1 at most no bytes, or fewer, is at most one", arguments: LoopKind.available)
    func readNothing(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pipe = try PipePair()
            let reader = try loop.adoptPipe(read: pipe.readEnd)
            defer { close(pipe.writeEnd) }
            #expect(write(pipe.writeEnd, "abcd", 4) == 4)
            #expect(try await reader.read(atMost: 0) == [0x61])
            // What is left over from a longer read, too.
            let all = loop.spawn { try await reader.readToEnd() }
            try await until("it has read", on: loop) { loop.waitingOperations == 1 }
            all.cancel()
            #expect(await thrown { _ = try await all.value } == .cancelled(operation: "readToEnd"))
            for (count, byte): (Int, UInt8) in [(0, 0x62), (-1, 0x63), (.min, 0x64)] {
                #expect(try await reader.read(atMost: count) == [byte])
            }
            reader.close()
        }
    }

    @Test("B2 a high mark below zero is zero", arguments: LoopKind.available)
    func negativeMark(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let pipe = try PipePair()
            let writer = try loop.adoptPipe(write: pipe.writeEnd)
            defer { close(pipe.readEnd) }
            for mark in [-1, -8, .min] {
                writer.writeHighWaterMark = mark
                try await writer.write([1])
                #expect(writer.unsentByteCount == 0)
            }
            writer.abort()
        }
    }
}
