// SPDX-License-Identifier: Apache-2.0
//
// ProcessFaultTests.swift: children in crowds, children that cannot be had, and children that do not care.

import CLoopCore
import CSimulator
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private func openDescriptors() -> [Int] {
    ["pipe:", "/dev/null", "anon_inode:[pidfd]", "pidfd:"].map(openDescriptorCount(of:))
}

@Suite(.timeLimit(.minutes(1)), .realKernel("child processes"))
struct ProcessFaultTests {
    /// All read one pipe, so that one close ends them all.
    @Test("F49 of many children that end together, each is told once, and none is left", arguments: LoopKind.available)
    func many(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            // A descriptor for each.
            var limit = rlimit()
            getrlimit(descriptorLimit, &limit)
            limit.rlim_cur = min(limit.rlim_max, 4096)
            setrlimit(descriptorLimit, &limit)
            let before = openDescriptors()
            try await onLoop(named: kind) { loop in
                let log = Log<Int32>()
                let ends = try makePipe()
                var command = Command("cat")
                command.standardInput = .descriptor(ends.read)
                command.standardOutput = .null
                var waits: [Task<Void, any Error>] = []
                for number in 0..<1000 {
                    let child: ChildProcess
                    do { child = try loop.spawn(command) } catch LoopError.notStarted(_, let error)
                        where error.errno == EAGAIN && number >= 200
                    { break }  // as many as this machine lets us have
                    waits.append(
                        loop.spawn {
                            let exit = try await child.wait()
                            #expect(exit == .exited(0))
                            log.append(child.processID)
                        })
                }
                close(ends.read)
                try await loop.sleep(for: .zero)
                #expect(log.all.isEmpty)
                close(ends.write)
                for wait in waits { try await wait.value }
                let count = waits.count
                #expect(log.all.count == count && Set(log.all).count == count)
                #expect(!hasChildren())
                try await until("nothing waits", on: loop) { loop.waitingOperations == 0 }
            }
            #expect(openDescriptors() == before)
        }
    }

    @Test(
        "F50 a program that cannot be executed is named, with the cause, and nothing is left of it",
        arguments: LoopKind.available)
    func notExecuted(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let folder = try TemporaryDirectory()
            defer { folder.remove() }
            _ = try folder.file("true", "#!/bin/sh\nexit 9\n", mode: 0o600)
            let locked = try folder.file("locked", "#!/bin/sh\n", mode: 0o600)
            let text = try folder.file("text", "neither a program nor a script", mode: 0o700)
            let before = openDescriptors()
            try await onLoop(named: kind) { loop in
                func expect(
                    _ command: Command, _ errno: Int32, _ operation: String,
                    sourceLocation: SourceLocation = #_sourceLocation
                ) async {
                    var command = command
                    command.standardInput = .pipe
                    command.standardOutput = .pipe
                    command.standardError = .null
                    let error = await thrown { _ = try loop.spawn(command) }
                    #expect(
                        error
                            == .notStarted(
                                program: command.executable, IOError(errno: errno, operation: operation)),
                        sourceLocation: sourceLocation)
                    #expect("\(error!)".hasPrefix(command.executable), sourceLocation: sourceLocation)
                }
                await expect(Command("/no/such/program"), ENOENT, "execute it")
                await expect(Command("no-such-program"), ENOENT, "execute it")
                await expect(Command(""), ENOENT, "execute it")
                await expect(Command(locked), EACCES, "execute it")
                await expect(Command("/"), EACCES, "execute it")
                await expect(Command(text), ENOEXEC, "execute it")
                await expect(Command("/bin/sh/sh"), ENOENT, "execute it")
                var command = Command("locked")
                command.environment = .exactly(["PATH": "/nowhere:\(folder.path)"])
                await expect(command, EACCES, "execute it")
                command = Command("true")
                command.environment = .exactly(["PATH": "\(folder.path):/usr/bin:/bin"])
                let further = try await loop.run(command).exit
                #expect(further == .exited(0))
                command = Command("true")
                command.workingDirectory = "/no/such/folder"
                await expect(command, ENOENT, "change to /no/such/folder")
                command = Command("true")
                command.extraDescriptors = [3: 1_000_000]
                await expect(command, EBADF, "set its descriptors")
                command = Command("true")
                command.processGroup = .join(1)
                await expect(command, EPERM, "set its process group")
                let pipeline = await thrown {
                    _ = try loop.spawn(pipeline: [idleCommand(), Command("no-such-program")])
                }
                #expect(
                    pipeline == .notStarted(program: "no-such-program", IOError(errno: ENOENT, operation: "execute it"))
                )
                let run = await thrown { _ = try await loop.run(Command("no-such-program"), input: [1]) }
                #expect(run == .notStarted(program: "no-such-program", IOError(errno: ENOENT, operation: "execute it")))
                try await until("the first of the pipeline is reaped", on: loop) { !hasChildren() }
            }
            #expect(openDescriptors() == before)
        }
    }

    @Test("F50 a child that a signal ends says which", arguments: LoopKind.available)
    func killed(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            for number in [SIGKILL, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1] {
                let output = try await loop.run(.shell("echo before; kill -\(number) $$; echo after"))
                #expect(output.exit == .signalled(number) && output.exit.returnCode == -number)
                #expect(output.text == "before\n")
            }
        }
    }

    @Test("F50 no descriptors are left: no child is, either", arguments: LoopKind.available)
    func noDescriptors(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                // Anything that is loaded on first use is loaded now.
                var command = idleCommand()
                command.standardError = .pipe
                try await loop.withChild(command) { _ in }
                let shortage = try DescriptorShortage(leaving: 0)
                defer { shortage.end() }
                var errors = 0
                while errors < 20 {
                    let error = await thrown { _ = try loop.spawn(command).close() }
                    guard let error else { break }
                    guard case .notStarted("cat", let cause) = error, cause.errno == EMFILE else {
                        Issue.record("\(error)")
                        break
                    }
                    #expect(!hasChildren())
                    errors += 1
                    shortage.giveOne()
                }
                #expect(errors > 3 && errors < 20)
                try await until("it is reaped", on: loop) { !hasChildren() }
            }
        }
    }

    @Test(
        "F51 a child that closes its input is an error to write to, and holds nothing up", arguments: LoopKind.available
    )
    func closesInput(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command.shell("exec <&-; echo closed; exec cat <&3")
            let ends = try makePipe()
            command.standardInput = .pipe
            command.standardOutput = .pipe
            command.extraDescriptors = [3: ends.read]
            let child = try loop.spawn(command)
            close(ends.read)
            let input = child.standardInput!
            let leaving = loop.spawn { try await input.waitForReaderToLeave() }
            let write = loop.spawn { await thrown { try await input.write(pattern(1 << 20)) } }
            let said = try await child.standardOutput!.read()
            #expect(said == Array("closed\n".utf8))
            let error = try await write.value
            #expect(error == .io(IOError(errno: EPIPE, operation: "write to a pipe")))
            try await leaving.value
            #expect(child.isRunning)
            close(ends.write)
            let exit = try await child.wait()
            #expect(exit.isSuccess)
        }
    }

    @Test(
        "F51 a child that ignores its input keeps one writer waiting, and not the loop", arguments: LoopKind.available)
    func ignoresInput(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command("sleep", ["1000"])
            command.standardInput = .pipe
            command.standardOutput = .pipe
            let child = try loop.spawn(command)
            let input = child.standardInput!
            let write = loop.spawn { await thrown { try await input.write(pattern(1 << 20)) } }
            let read = loop.spawn { try await child.standardOutput!.read() }
            try await until("both wait", on: loop) { loop.waitingOperations == 3 }
            let other = try await loop.run(.shell("cat"), input: [1])
            #expect(other.standardOutput == [1])
            #expect(input.unsentByteCount > 0)
            try child.terminate()
            let error = try await write.value
            #expect(error.errno == EPIPE)
            let end = try await read.value
            #expect(end == nil)
            let exit = try await child.wait()
            #expect(exit == .signalled(SIGTERM))
        }
    }

    @Test("F51 a reader that leaves ends a child that writes, by SIGPIPE", arguments: LoopKind.available)
    func leavesReader(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command("cat", ["/dev/zero"])
            command.standardOutput = .pipe
            let child = try loop.spawn(command)
            _ = try await child.standardOutput!.read()
            child.standardOutput!.close()
            let exit = try await child.wait()
            #expect(exit == .signalled(SIGPIPE))
        }
    }
}

/// The kernel has no room for the next watch of this thread's loop, while `body` runs.
private func withoutRoomForWatch<Success>(
    _ kind: LoopKind, _ body: nonisolated(nonsending) () async throws -> Success
) async throws -> Success {
    // Kept until the fault is disarmed.
    let faults = UnsafeMutablePointer<shim_fault>.allocate(capacity: 1)
    defer { faults.deallocate() }
    faults.initialize(to: shim_fault())
    faults.pointee.call = kind == .selector ? SHIM_EPOLL_CTL : SHIM_POLL
    faults.pointee.error = ENOMEM
    shim_arm(faults, 1)
    defer { shim_disarm() }
    let result = try await body()
    #expect(shim_faults_played() == 1)
    return result
}

private let faultsPossible = shim_ring_faults_possible()

private actor Patient {
    private let executor: LoopSerialExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    init(on loop: any Loop) { executor = loop.serialExecutor }
    func wait(_ writer: PipeWriter) async -> LoopError? { await thrown { try await writer.waitForReaderToLeave() } }
}

@Suite(
    .timeLimit(.minutes(1)), .realKernel("child processes"), .enabled(if: faultsPossible, "no faults in this kernel"))
struct WatchFaultTests {
    @Test(
        "F74 U5 the end of a child is noticed also if the kernel had no room to watch it", arguments: LoopKind.available
    )
    func child(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let exit = try await withoutRoomForWatch(kind) { try await loop.spawn(.shell("exit 7")).wait() }
            #expect(exit == .exited(7))
        }
    }

    @Test(
        "F74 B1 a read of a pipe that cannot be watched is an error, and the next one reads",
        arguments: LoopKind.available)
    func reader(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ends = try makePipe()
            let reader = try loop.adoptPipe(read: ends.read)
            let error = try await withoutRoomForWatch(kind) { await thrown { _ = try await reader.read() } }
            #expect(error.errno == ENOMEM)
            let next = loop.spawn { try await reader.read() }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            #expect(unsafe write(ends.write, "x", 1) == 1)
            let bytes = try await next.value
            #expect(bytes == [UInt8(ascii: "x")])
            close(ends.write)
        }
    }

    @Test(
        "F74 B2 what is queued for a pipe that cannot be watched is written nevertheless", arguments: LoopKind.available
    )
    func writer(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ends = try makePipe()
            let writer = try loop.adoptPipe(write: ends.write)
            let reader = try loop.adoptPipe(read: ends.read)
            let bytes = pattern(1 << 20)
            try writer.send(copying: bytes.span.bytes)
            let flush = loop.spawn { try await writer.flush() }
            try await withoutRoomForWatch(kind) {
                try await until("the fault", on: loop) { shim_faults_played() == 1 }
            }
            let reading = loop.spawn { try await reader.readToEnd() }
            try await flush.value
            await writer.close()
            let all = try await reading.value
            #expect(all == bytes)
        }
    }

    @Test("F74 B2 who waits for the reader to leave is told that it cannot be watched", arguments: LoopKind.available)
    func readerLeaves(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let ends = try makePipe()
            let writer = try loop.adoptPipe(write: ends.write)
            let error = try await withoutRoomForWatch(kind) { await thrown { try await writer.waitForReaderToLeave() } }
            #expect(error.errno == ENOMEM)
            // One whose turn comes later, as its actor's is, is told so as well.
            let patient = Patient(on: loop)
            let later = try await withoutRoomForWatch(kind) { await patient.wait(writer) }
            #expect(later.errno == ENOMEM)
            let next = loop.spawn { try await writer.waitForReaderToLeave() }
            try await until("it waits", on: loop) { loop.waitingOperations == 1 }
            close(ends.read)
            try await next.value
        }
    }
}
