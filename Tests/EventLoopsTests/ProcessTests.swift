// SPDX-License-Identifier: Apache-2.0
//
// ProcessTests.swift: child processes: what they get, what they say, and how they end.

import CLoopCore
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Whether this process has children that run or wait to be reaped, none of which it reaps. In a process of its own.
func hasChildren() -> Bool {
    var info = siginfo_t()
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) >= 0 || errno != ECHILD
}

/// A child that runs until its input ends.
func idleCommand() -> Command {
    var command = Command("cat")
    command.standardInput = .pipe
    command.standardOutput = .null
    return command
}

@Suite(.timeLimit(.minutes(1)), .realKernel("child processes"))
struct ProcessTests {
    // MARK: What a child gets

    @Test("U1 a program gets its arguments as they are, and a shell its line", arguments: LoopKind.available)
    func arguments(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let arguments = ["a b", "", "$HOME", "'\"", "ä\n"]
            let printed = try await loop.run(Command("printf", ["%s|"] + arguments))
            #expect(printed.text == arguments.map { $0 + "|" }.joined())
            #expect(printed.exit == .exited(0) && printed.exit.isSuccess && printed.standardError == [])
            let line = try await loop.run(.shell("echo $((6 * 7)); echo no >&2; exit 3"))
            #expect(line.text == "42\n" && line.exit == .exited(3) && line.exit.returnCode == 3)
            #expect(line.standardError == Array("no\n".utf8))
            var named = Command("/bin/sh", ["-c", "echo $0"])
            named.name = "somebody"
            let name = try await loop.run(named)
            #expect(name.text == "somebody\n")
        }
    }

    @Test(
        "U1 the environment is inherited, replaced or changed, and its PATH is searched", arguments: LoopKind.available)
    func environment(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command("/usr/bin/env")
            command.environment = .exactly(["ONE": "1", "TWO": "zwei = 2"])
            let exact = try await loop.run(command)
            #expect(Set(exact.text.split(separator: "\n")) == ["ONE=1", "TWO=zwei = 2"])
            command.environment = .inherit
            let inherited = Set(try await loop.run(command).text.split(separator: "\n"))
            #expect(inherited.contains { $0.hasPrefix("PATH=") })
            command.environment = .updating(["ONE": "1", "PATH": nil])
            let updated = Set(try await loop.run(command).text.split(separator: "\n"))
            #expect(updated.contains("ONE=1") && !updated.contains { $0.hasPrefix("PATH=") })
            #expect(updated.subtracting(["ONE=1"]).isSubset(of: inherited))

            var found = Command("sh", ["-c", "exit 5"])
            found.environment = .exactly(["PATH": "/nowhere:/etc/passwd:/bin"])
            let exit = try await loop.run(found).exit
            #expect(exit == .exited(5))
            found.environment = .exactly(["PATH": "/nowhere"])
            let refused = await thrown { _ = try await loop.run(found) }
            #expect(refused == .notStarted(program: "sh", IOError(errno: ENOENT, operation: "execute it")))
        }
    }

    @Test("U1 working directory, process group and session", arguments: LoopKind.available)
    func placeAndGroup(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command("pwd")
            command.workingDirectory = "/usr"
            let place = try await loop.run(command)
            #expect(place.text == "/usr\n")

            // "pid (name) state parent group session ..."
            command = .shell("exec cat /proc/self/stat")
            func fields(_ command: Command) async throws -> [Int32] {
                let text = try await loop.run(command).text
                return text.split(separator: ")").last!.split(separator: " ").dropFirst().prefix(3).map { Int32($0)! }
                    + [Int32(text.split(separator: " ")[0])!]
            }
            let same = try await fields(command)
            #expect(same[0] == getpid() && same[1] == getpgrp() && same[2] == getsid(0))
            command.processGroup = .new
            let new = try await fields(command)
            #expect(new[1] == new[3] && new[2] == getsid(0))
            command.processGroup = .newSession
            let session = try await fields(command)
            #expect(session[1] == session[3] && session[2] == session[3])
            var leader = idleCommand()
            leader.processGroup = .new
            try await loop.withChild(leader) { [command] child in
                var command = command
                command.processGroup = .join(child.processID)
                let joined = try await fields(command)
                #expect(joined[1] == child.processID)
            }
        }
    }

    @Test("U1 all signals have their default action in a child, and none is blocked", arguments: LoopKind.available)
    func signals(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            signal(SIGUSR1, SIG_IGN)
            signal(SIGPIPE, SIG_IGN)
            signal(SIGHUP) { _ in }
            try await onLoop(named: kind) { loop in
                var (set, before, after) = (sigset_t(), sigset_t(), sigset_t())
                sigemptyset(&set)
                sigaddset(&set, SIGUSR2)
                pthread_sigmask(SIG_BLOCK, &set, nil)
                pthread_sigmask(SIG_BLOCK, nil, &before)
                let output = try await loop.run(Command("cat", ["/proc/self/status"]))
                let sets = output.text.split(separator: "\n").filter { line in
                    ["SigBlk", "SigIgn", "SigCgt"].contains { line.hasPrefix($0) }
                }.map { $0.split(separator: "\t").last! }
                #expect(sets.count == 3 && sets.allSatisfy { UInt64($0, radix: 16) == 0 }, "\(output.text)")
                // And here everything is as it was.
                pthread_sigmask(SIG_BLOCK, nil, &after)
                for number in 1..<32 {
                    #expect(sigismember(&before, Int32(number)) == sigismember(&after, Int32(number)))
                }
            }
        }
    }

    @Test("U1 a child has the descriptors it is given and no others", arguments: LoopKind.available)
    func descriptors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (one, two) = (try makePipe(), try makePipe())
            defer { for descriptor in [one.read, two.read] { close(descriptor) } }
            #expect(write(one.write, "one", 3) == 3 && write(two.write, "two", 3) == 3)
            for descriptor in [one.write, two.write] { close(descriptor) }
            let open = fcntl(one.read, F_DUPFD, 0)
            defer { close(open) }
            #expect(fcntl(open, F_GETFD) & FD_CLOEXEC == 0)
            // Each in the place of the other.
            var command = Command("cat", ["/dev/fd/\(one.read)", "/dev/fd/\(two.read)"])
            command.extraDescriptors = [one.read: two.read, two.read: one.read]
            let swapped = try await loop.run(command)
            #expect(swapped.text == "twoone")

            command = Command("ls", ["/proc/self/fd"])
            command.extraDescriptors = [7: one.read]
            let listed = try await loop.run(command)
            // One more is the directory.
            #expect(listed.text.split(separator: "\n") == ["0", "1", "2", "3", "7"])
            #expect(isOpen(one.read))
        }
    }

    @Test("U1 standard streams: a pipe, a descriptor, nothing, or the output for both", arguments: LoopKind.available)
    func streams(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var both = Command.shell("echo out; echo err >&2")
            both.standardError = .standardOutput
            let merged = try await loop.run(both)
            #expect(merged.text == "out\nerr\n" && merged.standardError == [])

            let ends = try makePipe()
            var given = Command.shell("cat; echo err >&2")
            given.standardInput = .null
            given.standardOutput = .descriptor(ends.write)
            given.standardError = .standardOutput
            let child = try loop.spawn(given)
            #expect(child.standardInput == nil && child.standardOutput == nil && child.standardError == nil)
            close(ends.write)
            let reader = try loop.adoptPipe(read: ends.read)
            let text = try await reader.readToEnd()
            #expect(text == Array("err\n".utf8))
            let exit = try await child.wait()
            #expect(exit.isSuccess)

            // What is not given is inherited: a child of a child has its output.
            var silent = Command.shell("echo nobody; echo sees >&2")
            silent.standardOutput = .null
            silent.standardError = .null
            let unseen = try await loop.run(silent)
            #expect(unseen == CommandOutput(exit: .exited(0), standardOutput: [], standardError: []))
        }
    }

    @Test("U1 what C would cut short is refused, and arguments stay out of descriptions", arguments: LoopKind.available)
    func text(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var commands = [Command](repeating: Command("true", ["secret"]), count: 8)
            commands[0].executable = "tr\0ue"
            commands[1].arguments = ["a\0b"]
            commands[2].environment = .exactly(["A": "a\0b"])
            commands[3].environment = .updating(["A=B": nil])
            commands[4].environment = .updating(["": "1"])
            commands[5].workingDirectory = "/\0"
            commands[6].extraDescriptors = [2: 0]
            commands[7].processGroup = .join(0)
            for command in commands {
                let error = await thrown { _ = try loop.spawn(command) }
                guard case .notStarted(let program, let cause) = error else {
                    Issue.record("\(command): \(String(describing: error))")
                    continue
                }
                #expect(program == command.executable && cause.errno == EINVAL)
                #expect(!"\(error!) \(command) \(String(reflecting: command))".contains("secret"))
            }
            let child = try loop.spawn(Command("true", ["secret"]))
            #expect("\(child)" == "true (process \(child.processID))")
            _ = try await child.wait()
        }
    }

    // MARK: Events

    @Test(
        "U2 what a child wrote can be read after its end, and its pipes may end before", arguments: LoopKind.available)
    func order(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            var command = Command.shell("echo late")
            command.standardOutput = .pipe
            let child = try loop.spawn(command)
            #expect(child.isRunning && child.exit == nil && child.returnCode == nil)
            let exit = try await child.wait()
            #expect(exit == .exited(0) && !child.isRunning && child.returnCode == 0)
            let output = try #require(child.standardOutput)
            let text = try await output.readToEnd()
            #expect(text == Array("late\n".utf8))

            command = .shell("echo early; exec >&-; read line")
            command.standardInput = .pipe
            command.standardOutput = .pipe
            let second = try loop.spawn(command)
            let early = try await second.standardOutput!.readToEnd()
            #expect(early == Array("early\n".utf8) && second.isRunning)
            await second.standardInput!.close()
            let code = try await second.wait()
            #expect(code == .exited(1))
        }
    }

    @Test("U3 signals reach a child, and one that is gone is no error", arguments: LoopKind.available)
    func sendSignals(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let terminated = try loop.spawn(idleCommand())
            try terminated.send(signal: 0)
            #expect(throws: LoopError.self) { try terminated.send(signal: 999) }
            try terminated.terminate()
            let first = try await terminated.wait()
            #expect(first == .signalled(SIGTERM) && first.returnCode == -15 && !first.isSuccess)
            for _ in 0..<2 { try terminated.terminate() }

            let killed = try loop.spawn(idleCommand())
            try killed.kill()
            // It may be a zombie by now, which the loop does not know of yet.
            try killed.kill()
            let second = try await killed.wait()
            #expect(second == .signalled(SIGKILL))
            try killed.kill()

            var stopped = idleCommand()
            stopped.standardOutput = .pipe
            let child = try loop.spawn(stopped)
            try child.send(signal: SIGSTOP)
            try await child.standardInput!.write(Array("x".utf8))
            #expect(child.isRunning)
            try child.send(signal: SIGCONT)
            let echoed = try await child.standardOutput!.read()
            #expect(echoed == Array("x".utf8))
            child.close()
            let wrongThread = await Task.detached { await thrown { try child.kill() } }.value
            #expect(wrongThread == .wrongThread(operation: "send(signal:)"))
            _ = try await child.wait()
        }
    }

    @Test("U4 a close ends the pipes and the child, which is reaped", arguments: LoopKind.available)
    func closing(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let openPipes = openDescriptorCount(of: "pipe:")
            try await onLoop(named: kind) { loop in
                var command = Command("sleep", ["1000"])
                command.standardInput = .pipe
                command.standardOutput = .pipe
                command.standardError = .pipe
                let child = try loop.spawn(command)
                child.close()
                child.close()
                #expect(child.standardInput!.isClosed)
                #expect(child.standardOutput!.isClosed && child.standardError!.isClosed)
                let exit = try await child.wait()
                #expect(exit == .signalled(SIGKILL))
                #expect(!hasChildren())
                // Also from elsewhere.
                let other = try loop.spawn(command)
                await Task.detached { other.close() }.value
                let second = try await other.wait()
                #expect(second == .signalled(SIGKILL))
                try await until("nothing waits", on: loop) { loop.waitingOperations == 0 }
                #expect(openDescriptorCount(of: "pipe:") == openPipes)
            }
        }
    }

    @Test(
        "U4 U5 a child that is dropped runs on without pipes, and is reaped by the loop", arguments: LoopKind.available)
    func dropped(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                // It ends because its input does.
                _ = try loop.spawn(idleCommand())
                try await until("it is reaped", on: loop) { !hasChildren() }
            }
        }
    }

    @Test("U5 a closed loop kills and reaps its children, and tells who waits", arguments: LoopKind.available)
    func closedLoop(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let kind = try #require(LoopKind(rawValue: kind))
            let wait = try await onThread {
                let loop = try kind.makeLoop()
                // Before it runs, too.
                var children = [try loop.spawn(Command("sleep", ["1000"]))]
                for _ in 0..<3 { children.append(try loop.spawn(Command("sleep", ["1000"]))) }
                let wait = loop.spawn { [child = children[0]] in await thrown { _ = try await child.wait() } }
                for _ in 0..<10 { try loop.runOnce(.noWait) }
                try loop.close()
                #expect(!hasChildren())
                #expect(throws: LoopError.closed) { try loop.spawn(Command("true")) }
                #expect(throws: LoopError.closed) { try children[0].kill() }
                children[0].close()
                #expect(children.map(\.exit) == [ChildExit?](repeating: .signalled(SIGKILL), count: 4))
                return wait
            }
            let error = try await wait.value
            #expect(error == .closed)
        }
    }

    @Test(
        "U5 a child that somebody else reaped has ended with 255, and that is reported", arguments: LoopKind.available)
    func reapedElsewhere(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onLoop(named: kind) { loop in
                let log = Log<String>()
                loop.onUnhandledError = { _, unhandled in log.append("\(unhandled)") }
                let child = try loop.spawn(Command("true"))
                var status: Int32 = 0
                #expect(waitpid(child.processID, &status, 0) == child.processID)
                // Gone, although the loop does not know.
                try child.kill()
                let exit = try await child.wait()
                #expect(exit == .unknown && exit.returnCode == 255 && !exit.isSuccess)
                #expect(log.all.count == 1 && log.all[0].contains("child process \(child.processID)"))
                try child.kill()
                // Nobody is to be told.
                signal(SIGCHLD, SIG_IGN)
                let other = try await loop.spawn(Command("true")).wait()
                #expect(other == .unknown && log.all.count == 2)
            }
        }
    }

    @Test("N17 U5 loops on several threads learn of their own children, without SIGCHLD", arguments: LoopKind.available)
    func threads(kind: LoopKind) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<Int32(4) {
                group.addTask {
                    try await onLoop(kind) { loop in
                        // Not for this thread, and nobody else asks for it.
                        var set = sigset_t()
                        sigemptyset(&set)
                        sigaddset(&set, SIGCHLD)
                        pthread_sigmask(SIG_BLOCK, &set, nil)
                        let codes = (0..<5).map { number * 10 + $0 }
                        var children: [ChildProcess] = []
                        for code in codes { children.append(try loop.spawn(.shell("exit \(code)"))) }
                        var exits: [ChildExit] = []
                        for child in children.reversed() { exits.append(try await child.wait()) }
                        #expect(exits == codes.reversed().map { .exited($0) })
                    }
                }
            }
            try await group.waitForAll()
        }
        try await onLoop(kind) { loop in
            let caught = try await loop.run(Command("grep", ["SigCgt", "/proc/\(getpid())/status"]))
            let signals = try #require(UInt64(caught.text.split(separator: "\t").last!.dropLast(), radix: 16))
            #expect(signals >> UInt64(SIGCHLD - 1) & 1 == 0)
        }
    }

    @Test("U6 a task that is cancelled runs nothing, and a cancelled run leaves nothing", arguments: LoopKind.available)
    func cancel(kind: LoopKind) async throws {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            let openPipes = openDescriptorCount(of: "pipe:")
            try await onLoop(named: kind) { loop in
                let late = loop.spawn {
                    withUnsafeCurrentTask { $0?.cancel() }
                    return [
                        await thrown { _ = try await loop.run(Command("sleep", ["1000"])) },
                        await thrown { try await loop.withChild(Command("sleep", ["1000"])) { _ in } },
                    ]
                }
                #expect(try await late.value == [.cancelled(operation: "run"), .cancelled(operation: "withChild")])
                #expect(!hasChildren())

                let command = Command.shell("echo started; exec sleep 1000")
                let run = loop.spawn { await thrown { _ = try await loop.run(command, input: pattern(1 << 20)) } }
                try await until("it waits", on: loop) { loop.waitingOperations == 4 }
                run.cancel()
                let error = try await run.value
                #expect(error == .cancelled(operation: "communicate"))
                #expect(!hasChildren())

                struct Mishap: Error {}
                await #expect(throws: Mishap.self) {
                    try await loop.withChild(Command("sleep", ["1000"])) { _ in throw Mishap() }
                }
                #expect(!hasChildren())
                let child = try await loop.withChild(idleCommand()) { $0 }
                #expect(child.exit == .signalled(SIGKILL))
                #expect(openDescriptorCount(of: "pipe:") == openPipes)
            }
        }
    }

    // MARK: Talking

    @Test("U7 input goes in while output and error come out", arguments: LoopKind.available)
    func communicate(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let input = pattern(400_000)
            let copied = try await loop.run(.shell("tee /dev/stderr"), input: input)
            #expect(difference(copied.standardOutput, input) == nil)
            #expect(difference(copied.standardError, input) == nil)
            // One that reads little or nothing of it.
            let ignored = try await loop.run(.shell("exec <&-; echo ok"), input: input)
            #expect(ignored.text == "ok\n" && ignored.exit.isSuccess)
            let head = try await loop.run(Command("head", ["-c", "3"]), input: input)
            #expect(head.standardOutput == Array(input.prefix(3)))
            let sorted = try await loop.run(Command("sort"), input: Array("b\nc\na\n".utf8))
            #expect(sorted.text == "a\nb\nc\n")
        }
    }

    @Test("U7 more output than allowed is an error, and a cancel loses nothing", arguments: LoopKind.available)
    func bounds(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let endless = await thrown { _ = try await loop.run(Command("cat", ["/dev/zero"]), maximumBytes: 100_000) }
            #expect(endless.errno == EMSGSIZE)
            let exact = try await loop.run(.shell("printf 12345"), maximumBytes: 5)
            #expect(exact.text == "12345")

            var command = Command.shell("printf abc; read line; printf def")
            command.standardInput = .pipe
            command.standardOutput = .pipe
            let child = try loop.spawn(command)
            let held = child.standardInput!
            let talk = loop.spawn { await thrown { _ = try await child.standardOutput!.readToEnd() } }
            try await until("it waits", on: loop) { loop.waitingOperations == 2 }
            talk.cancel()
            #expect(try await talk.value == .cancelled(operation: "readToEnd"))
            try await held.write([10])
            let output = try await child.communicate()
            #expect(output.text == "abcdef")
        }
    }

    @Test(
        "U7 any number of tasks wait for the end, and one that is cancelled changes nothing",
        arguments: LoopKind.available)
    func waiters(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let child = try loop.spawn(idleCommand())
            let waits = (0..<5).map { _ in loop.spawn { try await child.wait() } }
            let cancelled = loop.spawn { await thrown { _ = try await child.wait() } }
            try await loop.sleep(for: .zero)
            cancelled.cancel()
            #expect(try await cancelled.value == .cancelled(operation: "wait"))
            #expect(child.isRunning)
            try child.send(signal: SIGINT)
            for wait in waits {
                let exit = try await wait.value
                #expect(exit.returnCode == -SIGINT)
            }
            let again = try await child.wait()
            #expect(again == .signalled(SIGINT))
        }
    }

    @Test(
        "U7 too much on standard error ends the wait, as too much on standard output does",
        arguments: LoopKind.available)
    func tooManyErrors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            // Nobody reads the rest of its errors, so it never comes to the end of its output.
            for script in ["cat /dev/zero >&2", "echo output; cat /dev/zero >&2"] {
                let error = await thrown { _ = try await loop.run(Command.shell(script), maximumBytes: 100_000) }
                #expect(error.errno == EMSGSIZE)
            }
            // What was read is there for the next read, also if the output had come to its end.
            for script in ["echo output; cat /dev/zero >&2", "echo output; exec >&-; cat /dev/zero >&2"] {
                var command = Command.shell(script)
                command.standardOutput = .pipe
                command.standardError = .pipe
                let child = try loop.spawn(command)
                let error = await thrown { _ = try await child.communicate(maximumBytes: 100_000) }
                #expect(error.errno == EMSGSIZE && child.isRunning)
                let output = try await child.standardOutput?.read()
                let errors = try await child.standardError?.read(atMost: 100_000)
                #expect(output == Array("output\n".utf8) && errors == [UInt8](repeating: 0, count: 100_000))
                child.close()
            }
        }
    }

    @Test("U7 programs are connected to each other", arguments: LoopKind.available)
    func pipeline(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let lines = (0..<5000).map { "line \(($0 &* 7919) % 5000)\n" }
            var commands = [Command("sort"), Command("gzip", ["-c"]), Command("gzip", ["-dc"]), Command("cat")]
            for index in commands.indices { commands[index].environment = .updating(["LC_ALL": "C"]) }
            commands[0].standardInput = .pipe
            commands[3].standardOutput = .pipe
            let children = try loop.spawn(pipeline: commands)
            let input = children[0].standardInput!
            let feeding = loop.spawn {
                for line in lines { try await input.write(Array(line.utf8)) }
                await input.close()
            }
            let output = try await children[3].standardOutput!.readToEnd()
            try await feeding.value
            #expect(difference(output, lines.sorted().flatMap(\.utf8)) == nil)
            for child in children {
                let exit = try await child.wait()
                #expect(exit.isSuccess)
            }
        }
    }
}
