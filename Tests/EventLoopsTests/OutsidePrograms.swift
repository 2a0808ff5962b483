// SPDX-License-Identifier: Apache-2.0
//
// OutsidePrograms.swift: programs of other people, run by a test for a limited time, if they are here: python3, curl,
// socat, nc.

import Dispatch
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A program that need not be here.
struct OutsideProgram: Sendable {
    let name: String
    /// `nil`: it is not here.
    let path: String?
    /// Why it is not, or does not do.
    let absence: String

    static let curl = OutsideProgram("curl")
    static let socat = OutsideProgram("socat")
    /// The one of OpenBSD, by the name that Debian gives it: others have other options.
    static let netcat = OutsideProgram("nc.openbsd")

    /// The interpreter itself, as what is in PATH may be a script that looks for it. Takes a while, once.
    static let python: OutsideProgram = {
        let found = OutsideProgram("python3")
        if found.path == nil { return found }
        let probe = "import asyncio, sys; asyncio.run; print(sys.executable, end='')"
        let outcome = try? RunningProgram(found, ["-I", "-c", probe]).finish()
        guard let outcome, outcome.status == 0, !outcome.output.isEmpty else {
            return OutsideProgram(
                name: found.name, path: nil, absence: "python3 has no asyncio.run: older than 3.7, or not all of it")
        }
        return OutsideProgram(name: found.name, path: String(decoding: outcome.output, as: UTF8.self), absence: "")
    }()

    private init(_ name: String) {
        let directories = getenv("PATH").map { String(cString: $0) } ?? ""
        let paths = directories.split(separator: ":").map { "\($0)/\(name)" }
        self.init(
            name: name, path: paths.first { access($0, X_OK) == 0 },
            absence: "\(name) is not in PATH; `make tools` installs it on Debian")
    }

    private init(name: String, path: String?, absence: String) {
        (self.name, self.path, self.absence) = (name, path, absence)
    }
}

extension Trait where Self == ConditionTrait {
    /// For tests in which a program takes part, which is looked for when the first of them is about to run.
    static func program(_ program: @autoclosure @escaping @Sendable () -> OutsideProgram) -> Self {
        .enabled(if: isSimulated || program().path != nil, "\(isSimulated ? "" : program().absence)")
    }
}

/// A program that runs, and is killed when that takes too long or nobody holds this any more. Its methods block.
final class RunningProgram: @unchecked Sendable {
    struct Outcome: CustomStringConvertible {
        /// What it exited with, or 128 + the signal that ended it.
        let status: Int32
        let output: [UInt8]
        let errors: [UInt8]

        var description: String {
            let text = String(decoding: errors.suffix(2000), as: UTF8.self)
            return "status \(status), \(output.count) bytes of output, errors: \(text)"
        }
    }

    /// What of a program can be read.
    enum Stream { case output, errors }

    private let life: Life
    /// The other ends of its standard streams: sockets, as a pipe is not closed on exec from the first.
    private let input: Peer
    private let output: Peer
    private let errors: Peer
    private var unsent: ArraySlice<UInt8> = []
    private var isInputOpen = true
    private var outputBytes: [UInt8] = []
    private var isOutputOpen = true
    private var errorBytes: [UInt8] = []
    private var areErrorsOpen = true

    init(_ program: OutsideProgram, _ arguments: [String]) throws {
        let ends = try (Peer.pair(), Peer.pair(), Peer.pair())
        (input, output, errors) = (ends.0.peer, ends.1.peer, ends.2.peer)
        let theirs = [ends.0.descriptor, ends.1.descriptor, ends.2.descriptor]
        defer { for end in theirs { close(end) } }
        life = try Life(try #require(program.path), [program.name] + arguments, streams: theirs)
    }

    deinit { _ = life.end() }

    /// The next line that contains `text`.
    func line(_ stream: Stream = .output, containing text: String = "") throws -> String {
        while true {
            let bytes = stream == .output ? outputBytes : errorBytes
            if let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: bytes[..<end], as: UTF8.self)
                if stream == .output { outputBytes.removeFirst(end + 1) } else { errorBytes.removeFirst(end + 1) }
                if text.isEmpty || line.contains(text) { return line }
            } else if stream == .output ? isOutputOpen : areErrorsOpen {
                try exchange()
            } else {
                throw Impatience(description: "a line of a program that has ended: \(finishWithoutInput())")
            }
        }
    }

    /// Gives it `bytes` to read, and then the end; takes what it says until it ends.
    func finish(sending bytes: [UInt8] = []) throws -> Outcome {
        unsent = bytes[...]
        while isOutputOpen || areErrorsOpen { try exchange(sending: true) }
        return finishWithoutInput()
    }

    private func finishWithoutInput() -> Outcome {
        Outcome(status: life.wait(), output: outputBytes, errors: errorBytes)
    }

    /// Waits until something can be read or sent, and does that.
    private func exchange(sending: Bool = false) throws {
        if sending, unsent.isEmpty, isInputOpen {
            isInputOpen = false
            try input.finishWriting()
        }
        // A negative descriptor is passed over.
        var polls = [
            pollfd(fd: isOutputOpen ? output.descriptor : -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: areErrorsOpen ? errors.descriptor : -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: sending && isInputOpen ? input.descriptor : -1, events: Int16(POLLOUT), revents: 0),
        ]
        if poll(&polls, nfds_t(polls.count), -1) < 0 {
            if errno == EINTR { return }
            try check(-1, "poll")
        }
        if polls[0].revents != 0 { isOutputOpen = try take(&outputBytes, from: output) }
        if polls[1].revents != 0 { areErrorsOpen = try take(&errorBytes, from: errors) }
        if polls[2].revents != 0 { send() }
    }

    private func take(_ bytes: inout [UInt8], from peer: Peer) throws -> Bool {
        let received = try peer.receive()
        bytes += received
        return !received.isEmpty
    }

    /// A program that has ended, or does not read to the end, has had enough.
    private func send() {
        let sent = unsent.withUnsafeBytes {
            sendBytes(input.descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        }
        if sent >= 0 {
            unsent.removeFirst(sent)
        } else if errno != EAGAIN && errno != EINTR {
            (unsent, isInputOpen) = ([], false)
        }
    }
}

/// The life of a process: so long and no longer, and its end is asked for once. Any thread.
private final class Life: Sendable {
    private let id: pid_t
    private let status = Lock<Int32?>(nil)

    init(_ path: String, _ words: [String], streams: [Int32]) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (number, stream) in streams.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, stream, Int32(number))
        }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var id: pid_t = 0
        let error = posix_spawn(&id, path, &actions, nil, &arguments, environ)
        if error != 0 { throw IOError(errno: error, operation: "start \(path)") }
        self.id = id
        DispatchQueue.global().asyncAfter(deadline: .now() + 30) { [weak self] in self?.kill() }
    }

    /// While it has not been waited for, its number is its own.
    private func kill() {
        status.withLock { if $0 == nil { _ = sendSignal(id, SIGKILL) } }
    }

    /// Waits for its end, which is sure to come.
    func wait() -> Int32 {
        var ended = siginfo_t()
        while waitid(P_PID, id_t(id), &ended, Int32(WEXITED | WNOWAIT)) < 0 && errno == EINTR {}
        return status.withLock { known in
            if let known { return known }
            var word: Int32 = 0
            while waitpid(id, &word, 0) < 0 && errno == EINTR {}
            let signal = word & 0x7f
            let status = signal == 0 ? (word >> 8) & 0xff : 128 + signal
            known = status
            return status
        }
    }

    func end() -> Int32 {
        kill()
        return wait()
    }
}

private func sendSignal(_ id: pid_t, _ signal: Int32) -> Int32 { kill(id, signal) }
private func sendBytes(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int, _ flags: Int32) -> Int {
    send(descriptor, bytes, count, flags)
}
