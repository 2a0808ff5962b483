// SPDX-License-Identifier: Apache-2.0
//
// Command.swift: what is to be run as a child process, and with what.

/// A program to run, and what it gets: arguments, environment, directory, descriptors. Nothing runs before
/// ``Loop/spawn(_:)-(Command)`` or ``Loop/run(_:input:maximumBytes:)``. Source: asyncio's `subprocess_exec` and
/// `subprocess_shell`.
public struct Command: Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    /// The program: a path, or a name without a slash, which is looked up in the PATH of the child's environment. A
    /// relative path starts at ``workingDirectory``.
    public var executable: String
    /// What comes behind the program's name.
    public var arguments: [String]
    /// What the program takes for its name; else ``executable``.
    public var name: String?
    /// The environment.
    public var environment: Environment = .inherit
    /// Where it starts; else where this process is.
    public var workingDirectory: String?
    /// Where its input comes from.
    public var standardInput: Stream = .inherit
    /// Where its output goes.
    public var standardOutput: Stream = .inherit
    /// Where its complaints go.
    public var standardError: ErrorStream = .inherit
    /// Further descriptors: the number they have in the child, from 3 on, and which they are here. All others are
    /// closed there.
    public var extraDescriptors: [Int32: Int32] = [:]
    /// Its process group, to which terminals and `kill(2)` send signals.
    public var processGroup: ProcessGroup = .inherit

    public init(_ executable: String, _ arguments: [String] = []) {
        self.executable = executable
        self.arguments = arguments
    }

    /// One line for `/bin/sh -c`. Put nothing into it that others may choose. Signals reach the shell, and not what it
    /// has started.
    public static func shell(_ line: String) -> Command { Command("/bin/sh", ["-c", line]) }

    /// The program alone: arguments may be secrets, and this goes into logs.
    public var description: String { executable }
    public var debugDescription: String { executable }

    /// What the child's environment is made of.
    public enum Environment: Sendable, Hashable {
        /// A copy of this process's.
        case inherit
        /// These variables and no others.
        case exactly([String: String])
        /// A copy of this process's, with these set, or taken away where they are `nil`.
        case updating([String: String?])
    }

    /// What a standard stream of the child is.
    public enum Stream: Sendable, Hashable {
        /// The same as this process's.
        case inherit
        /// `/dev/null`.
        case null
        /// A pipe, whose other end the ``ChildProcess`` has.
        case pipe
        /// A descriptor that is open here, and stays this process's. A child expects one that blocks.
        case descriptor(Int32)
    }

    /// What the standard error of the child is.
    public enum ErrorStream: Sendable, Hashable {
        /// The same as this process's.
        case inherit
        /// `/dev/null`.
        case null
        /// A pipe, whose other end the ``ChildProcess`` has.
        case pipe
        /// A descriptor that is open here, and stays this process's.
        case descriptor(Int32)
        /// Whatever the child's standard output is.
        case standardOutput
    }

    /// Which process group the child belongs to.
    public enum ProcessGroup: Sendable, Hashable {
        /// This process's.
        case inherit
        /// One of its own, with the child's number.
        case new
        /// One that exists, in the same session.
        case join(Int32)
        /// One of its own, in a session of its own: without a terminal.
        case newSession
    }
}

/// How a child process ended.
public enum ChildExit: Sendable, Hashable, CustomStringConvertible {
    /// By itself, with this code.
    case exited(Int32)
    /// By this signal.
    case signalled(Int32)
    /// Somebody else has asked the kernel for it, or SIGCHLD is ignored in this process.
    case unknown

    /// The code, or the number of the signal, negative; 255 where it is not known. Source: asyncio's `returncode`.
    public var returnCode: Int32 {
        switch self {
        case .exited(let code): code
        case .signalled(let signal): -signal
        case .unknown: 255
        }
    }

    /// Whether it ended by itself with code 0.
    public var isSuccess: Bool { self == .exited(0) }

    public var description: String {
        switch self {
        case .exited(let code): "exited with code \(code)"
        case .signalled(let signal): "was ended by signal \(signal)"
        case .unknown: "ended, and somebody else was told how"
        }
    }
}
