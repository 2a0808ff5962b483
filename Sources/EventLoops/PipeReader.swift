// SPDX-License-Identifier: Apache-2.0
//
// PipeReader.swift: the reading end of a pipe, or of what is used as one.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension Loop {
    /// Takes over the reading end of a pipe, a stream socket, or a character device such as a terminal. It is set
    /// non-blocking, which whoever shares the open file notices too. On the loop's thread, or before the loop runs.
    /// Source: asyncio's `connect_read_pipe`.
    /// - Throws: `.notPollable` for a file, a directory or a block device; `.io` with `EINVAL` for anything else that is
    ///   no pipe, or is not open for reading; `.closed`, `.forked`, `.wrongThread`. The descriptor stays yours then.
    public func adoptPipe(read descriptor: Int32) throws(LoopError) -> PipeReader {
        try PipeReader(core, descriptor)
    }

    /// Takes over the writing end of a pipe, a stream socket, or a character device such as a terminal. Otherwise like
    /// ``adoptPipe(read:)``. Source: asyncio's `connect_write_pipe`.
    public func adoptPipe(write descriptor: Int32) throws(LoopError) -> PipeWriter {
        try PipeWriter(core, descriptor)
    }
}

extension LoopCore {
    /// Looks at what shall be a pipe, and sets it non-blocking.
    func preparePipe(_ descriptor: Int32, write: Bool) throws(LoopError) -> lc_pipe_kind {
        try check("adoptPipe")
        let kind = lc_pipe_kind_of(descriptor, write)
        if kind == -EPERM { throw .notPollable(descriptor: descriptor) }
        let result = kind < 0 ? kind : lc_pipe_prepare(descriptor)
        if result < 0 {
            let operation = "adopt descriptor \(descriptor) as a pipe to \(write ? "write to" : "read from")"
            throw .io(IOError(errno: result, operation: operation))
        }
        return lc_pipe_kind(rawValue: UInt32(kind))
    }
}

/// How many times a pipe is read or written in a row before others have their turn.
let pipeTurns = 16
let pipeChunk = 64 * 1024

/// The reading end of a pipe, which it owns.
///
/// Call it on the loop's thread. One that is dropped, or whose loop is closed, closes its descriptor.
public final class PipeReader: Dependent, @unchecked Sendable {
    private let core: LoopCore
    private let kind: lc_pipe_kind
    /// The descriptor, still owned by the reader; -1 once it is closed.
    public private(set) var descriptor: Int32

    private let waits: WaitList
    private var isWatched = false
    /// Read and not handed out: by ``collect(_:)``.
    private var collected: [UInt8] = []
    /// While everything is read as it comes: the most that may be collected.
    private var limit: Int?
    /// Called when more was collected than the limit allows.
    var onTooMuch: (() -> Void)?
    /// Another pipe of the same child had too much.
    private var hasGivenUp = false
    /// What came after the last byte: `0` for the end, or a negated errno.
    private var end: Int32?
    private var readsInARow = 0

    init(_ core: LoopCore, _ descriptor: Int32) throws(LoopError) {
        kind = try core.preparePipe(descriptor, write: false)
        self.core = core
        self.descriptor = descriptor
        waits = WaitList(core)
        core.dependents.add(self)
    }

    deinit {
        core.dependents.remove(self)
        if descriptor >= 0 { closeDescriptor(descriptor) }
    }

    /// Whether the descriptor is closed.
    public var isClosed: Bool { descriptor < 0 }

    // MARK: Reading

    /// The next bytes, at most so many, and at least one, suspending until there are some.
    ///
    /// What is in the pipe already is read at once; after some reads in a row others have their turn first.
    /// - Returns: `nil` once all writers have closed, or the other end of a terminal is gone.
    /// - Throws: `.cancelled` when the task is, and then no byte is lost. `.busy` while another read waits;
    ///   `.connectionClosed` after ``close()``, also of a read that waits; `.closed`, `.wrongThread`; `.io`.
    nonisolated(nonsending) public func read(atMost count: Int = 64 * 1024) async throws(LoopError) -> [UInt8]? {
        while true {
            try check("read")
            if limit != nil || !waits.isEmpty { throw .busy(operation: "read") }
            if let bytes = takeCollected(max(1, count)) { return bytes }
            if end == nil, readsInARow < pipeTurns, let bytes = receive(count) { return bytes }
            if let end {
                if end < 0 { throw .io(IOError(errno: end, operation: "read from a pipe")) }
                return nil
            }
            readsInARow = 0
            try await waitUntilReadable("read")
        }
    }

    /// Everything until the end, at most so many bytes. Otherwise like ``read(atMost:)``; what was read before an error
    /// or a cancel is there for the next read.
    /// - Throws: `.io` with `EMSGSIZE` once there are more than `maximumBytes`.
    nonisolated(nonsending) public func readToEnd(maximumBytes: Int = .max) async throws(LoopError) -> [UInt8] {
        try collect(maximumBytes)
        defer { stopCollecting() }
        while !hasCollected { try await waitUntilReadable("readToEnd") }
        try checkCollected()
        return takeCollected()
    }

    private func check(_ operation: StaticString) throws(LoopError) {
        try core.checkOnLoop(operation)
        if descriptor < 0 { throw .connectionClosed(operation: "\(operation)") }
    }

    private func takeCollected(_ count: Int) -> [UInt8]? {
        if collected.isEmpty { return nil }
        if collected.count <= count {
            defer { collected = [] }
            return collected
        }
        defer { collected.removeFirst(count) }
        return Array(collected.prefix(count))
    }

    /// `nil`: nothing now, or it has ended.
    private func receive(_ count: Int) -> [UInt8]? {
        let count = max(1, min(count, pipeChunk))
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            let result = lc_pipe_read(descriptor, kind, buffer.baseAddress, count)
            filled = max(0, result)
            if result <= 0 && result != -Int(EAGAIN) { end = Int32(result) }
        }
        if bytes.isEmpty { return nil }
        readsInARow += 1
        // Not a large block around a few bytes.
        return bytes.count < count / 2 ? bytes.withUnsafeBufferPointer { Array($0) } : bytes
    }

    // MARK: Collecting

    /// Reads everything as it comes, whether or not anybody waits.
    func collect(_ limit: Int) throws(LoopError) {
        try check("readToEnd")
        if self.limit != nil || !waits.isEmpty { throw .busy(operation: "readToEnd") }
        self.limit = limit
        collectMore()
        if hasCollected { return }
        do { try watch() } catch {
            self.limit = nil
            throw error
        }
    }

    private func collectMore() {
        for _ in 0..<pipeTurns where !hasCollected {
            guard let bytes = receive(pipeChunk) else { return }
            collected += bytes
        }
        if hasTooMuch { onTooMuch?() }
    }

    private var hasTooMuch: Bool { hasGivenUp || collected.count > limit ?? .max }

    /// Collects no more, as if there were too much: nobody will want it.
    func giveUp() {
        hasGivenUp = true
        waits.resumeAll()
    }

    /// Whether nothing further will be collected.
    var hasCollected: Bool { descriptor < 0 || end != nil || hasTooMuch }

    nonisolated(nonsending) func waitUntilCollected() async throws(LoopError) {
        while !hasCollected { try await waitUntilReadable("communicate") }
    }

    func stopCollecting() {
        limit = nil
        hasGivenUp = false
        if waits.isEmpty { unwatch() }
    }

    /// Throws where not everything could be collected, and leaves what was for the next read.
    func checkCollected() throws(LoopError) {
        try check("readToEnd")
        if let limit, hasTooMuch {
            throw .io(IOError(errno: EMSGSIZE, operation: "read at most \(limit) bytes from a pipe"))
        }
        if let end, end < 0 { throw .io(IOError(errno: end, operation: "read from a pipe")) }
    }

    func takeCollected() -> [UInt8] {
        defer { collected = [] }
        return collected
    }

    // MARK: Waiting

    nonisolated(nonsending) private func waitUntilReadable(_ operation: StaticString) async throws(LoopError) {
        do {
            try watch()
        } catch .notPollable where kind == LC_PIPE_DEVICE {
            // It never keeps a reader waiting.
            try await core.sleep(until: .now)
            if limit != nil { collectMore() }
            return
        }
        do { try await waits.wait(operation) } catch {
            if waits.isEmpty, limit == nil, core.isOnLoop { unwatch() }
            throw error
        }
        try check(operation)
    }

    private func watch() throws(LoopError) {
        if isWatched { return }
        _ = try core.watch(descriptor, .read, onFailure: { [self] in watchFailed($0) }) { [self] in becameReadable() }
        isWatched = true
    }

    private func watchFailed(_ error: LoopError) {
        isWatched = false
        waits.failAll(error)
    }

    private func becameReadable() {
        if limit != nil {
            readsInARow = 0
            collectMore()
            if !hasCollected { return }
        }
        waits.runAll()
        // Unless somebody waits again: a loop with nothing else to do may end.
        if waits.isEmpty, limit == nil || hasCollected { unwatch() }
    }

    private func unwatch() {
        if isWatched { _ = core.unwatch(descriptor, .read) }
        isWatched = false
    }

    // MARK: The end

    /// Closes the descriptor; a read that waits throws `.connectionClosed`. Writers find out with `EPIPE`. Calling it
    /// again does nothing. Any thread.
    public func close() {
        guard core.isOnLoop || !lc_loop_is_running(core.loop) else { return core.cancelSoon { self.close() } }
        closeNow()
    }

    private func closeNow() {
        if descriptor < 0 { return }
        unwatch()
        closeDescriptor(descriptor)
        descriptor = -1
        waits.resumeAll()
    }

    func loopClosed(isForked: Bool) { closeNow() }
}
