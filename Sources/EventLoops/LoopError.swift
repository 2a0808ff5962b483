// SPDX-License-Identifier: Apache-2.0
//
// LoopError.swift: the one family of errors. Each says what was being done, what came of it, and what to do.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A system call, or an operation of a loop, that failed: the operation and its `errno`.
public struct IOError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The `errno` value, positive.
    public let errno: Int32
    /// What was being done, as in `"connect"`.
    public let operation: String

    /// - Parameter errno: An `errno` value, positive or negated.
    public init(errno: Int32, operation: String) {
        self.errno = Int32(clamping: errno.magnitude)  // `.min` has no positive twin
        self.operation = operation
    }

    /// The name of the `errno` value, as in `"ECONNREFUSED"`.
    public var name: String { String(cString: lc_errno_name(errno)) }

    public var description: String { "\(operation): \(name) (\(String(cString: strerror(errno)))). \(advice)" }

    private var advice: String {
        switch errno {
        case EMFILE, ENFILE: "Close descriptors, or raise the limit (ulimit -n)."
        case ENOMEM, ENOBUFS: "Free memory, or ask for smaller rings and buffers."
        case EADDRINUSE: "Use another port, or end the program that holds it."
        case EADDRNOTAVAIL: "Use an address of this machine."
        case EACCES, EPERM: "Run with the right to do this, or choose a port above 1023."
        case ECONNREFUSED: "Check that the peer listens at this address."
        case ECONNRESET, EPIPE: "The peer is gone; close the connection."
        case ETIMEDOUT, EHOSTUNREACH, ENETUNREACH: "Check the address and the way to it, then try again."
        case EAGAIN: "Try again later, or raise the limit this met (threads: ulimit -u)."
        case EBADF: "The descriptor is not open; find out who closed it."
        case EINVAL: "Check the arguments."
        case EMSGSIZE: "Allow more bytes, or take them piece by piece."
        default: "See errno(3)."
        }
    }
}

/// What a loop, a policy or a connection can refuse or fail at.
public enum LoopError: Error, Sendable, Hashable {
    /// No loop has been set for this thread, and the policy does not make one here.
    case noCurrentLoop(thread: String)
    /// No loop runs on this thread.
    case noRunningLoop
    /// This loop runs already.
    case alreadyRunning
    /// Another loop runs on this thread.
    case anotherLoopRunning
    /// The loop cannot be closed while it runs.
    case running
    /// The loop is closed.
    case closed
    /// The loop belongs to the parent of this process.
    case forked
    /// The call belongs on the loop's thread.
    case wrongThread(operation: String)
    /// The loop's operations in the kernel belong to another thread.
    case boundToAnotherThread
    /// The run was ended by ``Loop/abort(throwing:)``. What is queued stays, and the loop can run again.
    case aborted(AbortReason)
    /// `run(until:)` ended before its body did. The body goes on when the loop runs again.
    case stoppedBeforeCompletion
    /// This kind of loop cannot be had here.
    case unavailable(LoopUnavailability)
    /// No policy has that name.
    case unknownPolicy(name: String, known: [String])
    /// A program could not be started: its name, and the step that failed.
    case notStarted(program: String, IOError)
    /// The task was cancelled. Nothing was lost: what arrives is there for the next read.
    case cancelled(operation: String)
    /// Somebody is waiting for the same thing already.
    case busy(operation: String)
    /// The connection or listener was closed on this side.
    case connectionClosed(operation: String)
    /// The sending side was finished with `finishWriting()`.
    case finishedWriting
    /// All workers are busy and the queue before them is full.
    case workersFull
    /// The worker pool is shut down.
    case workersShutDown
    /// A name could not be looked up.
    case resolving(ResolvingError)
    /// The kernel sends no datagram of this size from here.
    case datagramTooLarge(byteCount: Int)
    /// The datagram socket is connected to another address than the one it was asked to send to.
    case connectedElsewhere(to: String, not: String)
    /// The descriptor has no readiness, as regular files and directories have none.
    case notPollable(descriptor: Int32)
    /// A connection or listener of this loop owns the descriptor.
    case ownedByTransport(descriptor: Int32)
    /// No handler can be had for a signal of this number.
    case invalidSignal(Int32)
    /// The kernel cannot send this file to this socket.
    case sendFileNotAvailable(descriptor: Int32)
    /// The text is not an IPv4 or IPv6 address, or not a path or name that a Unix socket can have.
    case invalidAddress(String)
    /// A callback of the connection's handler threw, which ended the connection.
    case handlerFailed(callback: String, error: String)
    /// None of several addresses could be connected to.
    case connectFailed([ConnectAttempt])
    /// A system call failed.
    case io(IOError)
}

extension LoopError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noCurrentLoop(let thread):
            "There is no current loop in thread \(thread). Call Loops.setCurrent(_:) first, or use Loops.run."
        case .noRunningLoop:
            "No loop runs on this thread. Call this from a callback or task of a loop."
        case .alreadyRunning:
            "This loop is already running. Do not call run from one of its callbacks or from a second thread."
        case .anotherLoopRunning:
            "Another loop is running on this thread. Use a thread per loop."
        case .running:
            "The loop cannot be closed while it runs. Call stop(), and close it once run has returned."
        case .closed:
            "The loop is closed. Make a new one."
        case .forked:
            "The loop was made before this process was forked and belongs to the parent. Make a new one here."
        case .wrongThread(let operation):
            "\(operation): call this on the loop's thread: from its callbacks, or from a task of loop.spawn { }. Other threads hand "
                + "it over with callSoonThreadsafe(_:)."
        case .boundToAnotherThread:
            "The loop has operations in the kernel that belong to the thread which ran it before. "
                + "Run it there, or let them finish first; if that thread is gone, close the loop and make a new one."
        case .aborted(let reason):
            "The run was aborted (\(reason)). What was queued goes on when the loop runs again."
        case .stoppedBeforeCompletion:
            "The loop was stopped before the body completed. Run the loop again to let it go on."
        case .unavailable(let unavailability):
            unavailability.description
        case .unknownPolicy(let name, let known):
            "There is no loop policy named \"\(name)\". Known: \(known.sorted().joined(separator: ", "))."
        case .notStarted(let program, let error):
            "\(program) could not be started: \(error.operation): \(error.name). \(startAdvice(error.errno))"
        case .cancelled(let operation):
            "\(operation): the task was cancelled."
        case .busy(let operation):
            "\(operation): somebody waits for this already. Wait for one at a time."
        case .connectionClosed(let operation):
            "\(operation): the connection was closed on this side."
        case .finishedWriting:
            "write: the sending side is finished. Write before finishWriting()."
        case .workersFull:
            "offloadIfRoom: all workers are busy and their queue is full. Try later, or wait with offload."
        case .workersShutDown:
            "offload: the worker pool is shut down. Set another as the loop's workers, or offload to one of your own."
        case .resolving(let error):
            error.description
        case .datagramTooLarge(let byteCount):
            "send: no datagram of \(byteCount) bytes can be sent here. Send smaller ones."
        case .connectedElsewhere(let remote, let asked):
            "send: the socket is connected to \(remote), not to \(asked). Send without an address, or use another socket."
        case .notPollable(let descriptor):
            "Descriptor \(descriptor) has no readiness (a regular file or directory?). Read it without waiting."
        case .ownedByTransport(let descriptor):
            "Descriptor \(descriptor) belongs to a connection or listener of this loop. Use that instead."
        case .invalidSignal(let number):
            "Signal \(number) cannot be handled. SIGKILL and SIGSTOP are the kernel's, faults such as SIGSEGV would come "
                + "back at once, and there is none beyond SIGRTMAX. Choose another one."
        case .sendFileNotAvailable(let descriptor):
            "sendFile: the kernel cannot send descriptor \(descriptor) to this socket. Give a regular file, or read and send."
        case .invalidAddress(let text):
            "\"\(text)\" is no address. Give an IPv4 or IPv6 address, or for a Unix socket a name of 1 to 107 bytes."
        case .handlerFailed(let callback, let error):
            "The handler's \(callback) threw, so the connection was aborted: \(error)"
        case .connectFailed(let attempts):
            "None of \(attempts.count) addresses can be connected to. "
                + attempts.map(\.description).joined(separator: " ")
        case .io(let error):
            error.description
        }
    }
}

private func startAdvice(_ errno: Int32) -> String {
    switch errno {
    case ENOENT, ENOTDIR: "Check the path, or PATH; of a script, also the interpreter it names."
    case EACCES, EPERM: "Make the file executable, and see that its folders may be entered."
    case ENOEXEC: "It is no program for this machine; a script begins with #! and its interpreter."
    case E2BIG: "Pass less in arguments and environment."
    case EAGAIN: "Wait for children to end, or raise the limit of processes (ulimit -u)."
    case EMFILE, ENFILE: "Close descriptors, or raise the limit (ulimit -n)."
    case EINVAL: "Check what the command says."
    default: "See errno(3)."
    }
}

extension LoopError {
    /// The error for a negated errno of the core.
    init(core result: Int32, operation: String) {
        switch -result {
        case ECANCELED: self = .cancelled(operation: operation)
        case ESHUTDOWN: self = .connectionClosed(operation: operation)
        case EBUSY: self = .busy(operation: operation)
        case EOWNERDEAD: self = .forked
        default: self = .io(IOError(errno: result, operation: operation))
        }
    }
}
