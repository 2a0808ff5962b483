// SPDX-License-Identifier: Apache-2.0
//
// ChildProcess.swift: child processes of a loop: start, signals, the end.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension Loop {
    /// Starts a child process, and returns once its program executes, which blocks the loop for as long as the kernel
    /// takes: the better part of a millisecond. It does not suspend, so no cancel can come between.
    ///
    /// All signals have their default action in the child. Of this process's descriptors it has those that `command`
    /// gives it, and where standard input, output and error are inherited, those. Closing the loop kills its children.
    ///
    /// On the loop's thread, or before the loop runs. Each child takes one descriptor until it has ended, and one for
    /// each pipe. Linux 5.4. Source: asyncio's `subprocess_exec`.
    /// - Throws: `.notStarted`, with the program and the step that failed, and then nothing is left of it;
    ///   `.closed`, `.forked`, `.wrongThread`.
    public func spawn(_ command: Command) throws(LoopError) -> ChildProcess { try ChildProcess(core, command) }

    /// Starts `commands`, the output of each connected to the input of the next. What the first reads and the last
    /// writes is as they say.
    /// - Throws: As ``spawn(_:)-(Command)``; those that were started are killed then.
    public func spawn(pipeline commands: [Command]) throws(LoopError) -> [ChildProcess] {
        var children: [ChildProcess] = []
        var input: Int32?
        do throws(LoopError) {
            for (index, command) in commands.enumerated() {
                let isLast = index == commands.count - 1
                children.append(try spawn(command, reading: &input, pipingOn: !isLast))
            }
        } catch {
            if let input { closeDescriptor(input) }
            for child in children { child.close() }
            throw error
        }
        return children
    }

    /// - Parameter input: What the command reads, which is closed here; then what the one behind it reads.
    private func spawn(
        _ command: Command, reading input: inout Int32?, pipingOn: Bool
    ) throws(LoopError) -> ChildProcess {
        var command = command
        let ownInput = input.take()
        var (readEnd, writeEnd) = (Int32(-1), Int32(-1))
        defer { for descriptor in [ownInput ?? -1, writeEnd] where descriptor >= 0 { closeDescriptor(descriptor) } }
        if let ownInput { command.standardInput = .descriptor(ownInput) }
        if pipingOn {
            let result = lc_pipe_make(&readEnd, &writeEnd)
            if result < 0 {
                throw .notStarted(
                    program: command.executable, IOError(errno: result, operation: "make a pipe"))
            }
            input = readEnd
            command.standardOutput = .descriptor(writeEnd)
        }
        return try spawn(command)
    }

    /// A child for the length of `body`. If it still runs then, it is killed, and its end is waited for. On the loop's
    /// thread.
    /// - Throws: What `body` throws; as ``spawn(_:)-(Command)``; `.cancelled` if the task is already.
    nonisolated(nonsending) public func withChild<Success>(
        _ command: Command, _ body: nonisolated(nonsending) (ChildProcess) async throws -> Success
    ) async throws -> Success {
        try core.checkOnLoop("withChild")
        if Task.isCancelled { throw LoopError.cancelled(operation: "withChild") }
        let child = try spawn(command)
        do {
            let result = try await body(child)
            await child.end()
            return result
        } catch {
            await child.end()
            throw error
        }
    }
}

/// A child process of a loop.
///
/// Call it on the loop's thread. One that is dropped runs on, with its pipes closed, and is reaped by the loop. Its end
/// is noticed by a process descriptor, not by SIGCHLD, on whatever thread the loop runs. Source: asyncio's `Process`.
public final class ChildProcess: @unchecked Sendable, CustomStringConvertible {
    /// The program, as the command names it.
    public let program: String
    /// The writing end of its standard input, where that is a pipe.
    public let standardInput: PipeWriter?
    /// The reading end of its standard output, where that is a pipe. What is in it can be read after the end, too.
    public let standardOutput: PipeReader?
    /// The reading end of its standard error, where that is a pipe.
    public let standardError: PipeReader?

    let core: LoopCore
    private let life: ChildLife

    init(_ core: LoopCore, _ command: Command) throws(LoopError) {
        try core.check("spawn")
        let started = try command.start(on: core)
        self.core = core
        program = command.executable
        standardInput = started.input
        standardOutput = started.output
        standardError = started.error
        life = ChildLife(core, started.child, program)
        try life.watch()
    }

    /// Its number. Once it has ended the kernel may give it to another process.
    public var processID: Int32 { life.processID }
    /// Whether it has not ended, as far as the loop has noticed.
    public var isRunning: Bool { life.exit == nil }
    /// How it ended; `nil` while it runs.
    public var exit: ChildExit? { life.exit }
    /// The code it ended with, or the number of the signal, negative; `nil` while it runs.
    public var returnCode: Int32? { life.exit?.returnCode }

    public var description: String { "\(program) (process \(processID))" }

    /// Waits for its end. Any number of tasks may.
    ///
    /// Its pipes are another matter: what it wrote can be read afterwards, and a child of its own may hold them open. A
    /// child that waits for room in its pipes does not end; ``communicate(input:maximumBytes:)`` reads meanwhile.
    /// - Returns: How it ended. `.unknown` where somebody else was told; that is reported to `onUnhandledError`, too.
    /// - Throws: `.cancelled`, and the child runs on; `.closed` if the loop is closed, which kills it; `.wrongThread`.
    nonisolated(nonsending) public func wait() async throws(LoopError) -> ChildExit {
        try core.checkOnLoop("wait")
        while true {
            if let exit = life.exit { return exit }
            try await life.waits.wait("wait")
        }
    }

    /// Sends it a signal. Nothing happens to a child that has ended, nor to another process that has its number now.
    /// - Throws: `.io` with `EPERM` if it runs as somebody else, `EINVAL` if there is no such signal; `.closed`,
    ///   `.wrongThread`.
    public func send(signal: Int32) throws(LoopError) {
        try core.check("send(signal:)")
        let result = life.send(signal)
        if result < 0 { throw .io(IOError(errno: result, operation: "send signal \(signal) to \(program)")) }
    }

    /// Asks it to end: SIGTERM.
    public func terminate() throws(LoopError) { try send(signal: SIGTERM) }

    /// Ends it: SIGKILL.
    public func kill() throws(LoopError) { try send(signal: SIGKILL) }

    /// Kills it if it still runs, and closes its pipes, dropping what is queued; the loop reaps it. Calling it again does
    /// nothing. Any thread.
    public func close() {
        guard core.isOnLoop || !lc_loop_is_running(core.loop) else { return core.cancelSoon { self.close() } }
        // Before its pipes: one that reads their end goes on its own, now and then before the signal comes.
        if !lc_loop_is_forked(core.loop) { _ = life.send(SIGKILL) }
        standardInput?.abort()
        standardOutput?.close()
        standardError?.close()
    }

    /// Closes it, and waits until it is reaped, which no cancel shortens.
    nonisolated(nonsending) func end() async {
        close()
        while core.isOnLoop, life.exit == nil { await life.waits.waitUncancelled() }
    }
}

/// The process itself, which its loop watches until its end, with or without a ``ChildProcess``. On the loop's thread.
private final class ChildLife: Dependent, @unchecked Sendable {
    private let core: LoopCore
    private let program: String
    let processID: Int32
    /// -1 once it is reaped.
    private var descriptor: Int32
    private(set) var exit: ChildExit?
    let waits: WaitList

    init(_ core: LoopCore, _ child: lc_child, _ program: String) {
        self.core = core
        self.program = program
        processID = child.pid
        descriptor = child.pidfd
        waits = WaitList(core)
        core.dependents.add(self)
    }

    deinit { core.dependents.remove(self) }

    /// The watch keeps it alive.
    func watch() throws(LoopError) {
        do { try arm() } catch {
            _ = send(SIGKILL)
            endAtLast()
            throw error
        }
    }

    private func arm() throws(LoopError) {
        _ = try core.watch(descriptor, .read, onFailure: { [self] _ in watchFailed() }) { [self] in mayHaveEnded() }
    }

    /// It runs on, and is looked after again and again until there is room for a watch.
    private func watchFailed() {
        do { try core.retryWatch { [self] in lookAfter() } } catch {
            _ = send(SIGKILL)
            endAtLast()
            waits.runAll()
        }
    }

    private func lookAfter() {
        if exit == nil { mayHaveEnded() }
        if exit != nil { return }
        do { try arm() } catch { watchFailed() }
    }

    func send(_ signal: Int32) -> Int32 { descriptor < 0 ? 0 : lc_child_signal(descriptor, signal) }

    private func mayHaveEnded() {
        var end = lc_child_end()
        let result = lc_child_reap(descriptor, &end)
        if result == 0 { return }
        _ = core.unwatch(descriptor, .read)
        finish(result, end)
        if result < 0 {
            let error = LoopError.io(IOError(errno: result, operation: "wait for \(program)"))
            core.report(error, "child process \(processID), whose exit code somebody else has taken")
        }
        waits.runAll()
    }

    private func finish(_ result: Int32, _ end: lc_child_end) {
        exit = result != 1 ? .unknown : end.signal != 0 ? .signalled(end.signal) : .exited(end.code)
        closeDescriptor(descriptor)
        descriptor = -1
    }

    /// It has been killed, and needs no loop to end.
    private func endAtLast() {
        if descriptor < 0 { return }
        var end = lc_child_end()
        finish(lc_child_reap_within(descriptor, 1000, &end), end)
    }

    func loopCloses(isForked: Bool) {
        if !isForked { _ = send(SIGKILL) }
    }

    func loopClosed(isForked: Bool) {
        if isForked {
            if descriptor >= 0 { closeDescriptor(descriptor) }
            descriptor = -1
        } else {
            endAtLast()
        }
        waits.resumeAll()
    }
}
