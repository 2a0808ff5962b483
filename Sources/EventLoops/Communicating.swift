// SPDX-License-Identifier: Apache-2.0
//
// Communicating.swift: all of a child's input in, all of its output out, at the same time.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What a child process wrote, and how it ended.
public struct CommandOutput: Sendable, Hashable {
    /// How it ended.
    public let exit: ChildExit
    /// What it wrote to its standard output, if that was a pipe.
    public let standardOutput: [UInt8]
    /// What it wrote to its standard error, if that was a pipe of its own.
    public let standardError: [UInt8]

    /// The standard output as UTF-8.
    public var text: String { String(decoding: standardOutput, as: UTF8.self) }
}

extension ChildProcess {
    /// Writes `input` to its standard input and closes that, reads its output and error to their ends meanwhile, and
    /// waits for its own. So it cannot block, whichever of them it uses first. One that does not read all of its input
    /// is no error. Streams that are not pipes are left alone. Source: asyncio's `communicate`.
    /// - Parameter maximumBytes: The most that each of output and error may be.
    /// - Throws: `.io` with `EMSGSIZE` beyond `maximumBytes`; `.cancelled`, `.closed`, `.busy`, `.wrongThread`. The child
    ///   runs on then, and what was read is there for the next read.
    nonisolated(nonsending) public func communicate(
        input: [UInt8] = [], maximumBytes: Int = .max
    ) async throws(LoopError) -> CommandOutput {
        try core.checkOnLoop("communicate")
        defer {
            standardError?.onTooMuch = nil
            standardOutput?.stopCollecting()
            standardError?.stopCollecting()
        }
        feed(input)
        // A child whose error is not read any more since it was too much may not end, nor its output.
        standardError?.onTooMuch = { [weak standardOutput] in standardOutput?.giveUp() }
        if let standardOutput { try standardOutput.collect(maximumBytes) }
        if let standardError { try standardError.collect(maximumBytes) }
        let readers = [standardOutput, standardError].compactMap(\.self)
        for reader in readers {
            try await reader.waitUntilCollected()
            try reader.checkCollected()
        }
        let exit = try await wait()
        // Taken last, so that nothing is lost with an error.
        return CommandOutput(
            exit: exit, standardOutput: standardOutput?.takeCollected() ?? [],
            standardError: standardError?.takeCollected() ?? [])
    }

    private func feed(_ input: [UInt8]) {
        guard let standardInput else { return }
        // It may have left, or closed its end; what it has to say then is in its output.
        if !input.isEmpty { try? standardInput.send(copying: input.span.bytes) }
        standardInput.closeSoon()
    }
}

extension Loop {
    /// Runs a command with `input`, and returns what it wrote and how it ended. Of its streams, those that are
    /// `.inherit` become pipes, the input only if there is some; without, it is `.null`.
    ///
    /// If the wait ends early, the child is killed, and its end is waited for: nothing is left of it. On the loop's
    /// thread.
    /// - Throws: As ``spawn(_:)-(Command)`` and ``ChildProcess/communicate(input:maximumBytes:)``. A child that fails is
    ///   no error: see ``CommandOutput/exit``.
    nonisolated(nonsending) public func run(
        _ command: Command, input: [UInt8] = [], maximumBytes: Int = .max
    ) async throws(LoopError) -> CommandOutput {
        try core.checkOnLoop("run")
        if Task.isCancelled { throw .cancelled(operation: "run") }
        var command = command
        if command.standardInput == .inherit { command.standardInput = input.isEmpty ? .null : .pipe }
        if command.standardOutput == .inherit { command.standardOutput = .pipe }
        if command.standardError == .inherit { command.standardError = .pipe }
        let child = try spawn(command)
        let result: Result<CommandOutput, LoopError>
        do {
            result = .success(try await child.communicate(input: input, maximumBytes: maximumBytes))
        } catch {
            result = .failure(error)
        }
        await child.end()
        return try result.get()
    }
}
