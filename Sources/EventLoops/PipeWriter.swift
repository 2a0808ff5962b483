// SPDX-License-Identifier: Apache-2.0
//
// PipeWriter.swift: the writing end of a pipe, or of what is used as one.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The writing end of a pipe, which it owns. Closing it is the end of the reader's input.
///
/// Call it on the loop's thread. What the pipe has no room for is queued, and written as room comes; one that is dropped
/// meanwhile writes what is queued first. Once the reader has left, writing throws `.io` with `EPIPE`; no SIGPIPE is
/// raised, whatever its action is in this process.
public final class PipeWriter: Dependent, @unchecked Sendable {
    private let core: LoopCore
    private let kind: lc_pipe_kind
    /// The descriptor, still owned by the writer; -1 once it is closed.
    public private(set) var descriptor: Int32
    /// More than this many bytes queued: ``write(_:)`` waits until they are at most a quarter of it.
    public var writeHighWaterMark = 64 * 1024

    private var queue: [UInt8] = []
    /// Bytes of the queue that are written.
    private var written = 0
    /// What broke it: a negated errno.
    private var failure: Int32 = 0
    private var isClosing = false
    private var isWatched = false
    private var isReaderWatched = false
    /// For room, or for the end.
    private let waits: WaitList
    private let leaving: WaitList

    init(_ core: LoopCore, _ descriptor: Int32) throws(LoopError) {
        kind = try core.preparePipe(descriptor, write: true)
        self.core = core
        self.descriptor = descriptor
        waits = WaitList(core)
        leaving = WaitList(core)
        core.dependents.add(self)
    }

    deinit {
        core.dependents.remove(self)
        if descriptor >= 0 { closeDescriptor(descriptor) }
    }

    /// Whether the descriptor is closed.
    public var isClosed: Bool { descriptor < 0 }
    /// Bytes queued and not yet in the pipe.
    public var unsentByteCount: Int { queue.count - written }

    // MARK: Writing

    /// Writes `bytes`, and queues those that the pipe has no room for.
    ///
    /// Suspends only while more than ``writeHighWaterMark`` bytes are queued.
    /// - Throws: `.io` with the errno that broke the pipe, `EPIPE` when the reader has left; `.connectionClosed`;
    ///   `.cancelled` if the task is while it waits, in which case the bytes are queued nevertheless; `.closed`,
    ///   `.wrongThread`.
    nonisolated(nonsending) public func write(_ bytes: [UInt8]) async throws(LoopError) {
        try core.checkOnLoop("write")
        try send(copying: bytes.span.bytes)
        if unsentByteCount <= highWaterMark { return }
        while unsentByteCount > highWaterMark / 4 { try await wait("write") }
    }

    /// The same without waiting, however many are queued.
    public func send(copying bytes: RawSpan) throws(LoopError) {
        try core.check("write")
        if descriptor < 0 || isClosing { throw .connectionClosed(operation: "write") }
        var taken = 0
        if failure == 0, queue.isEmpty { taken = bytes.withUnsafeBytes { put($0) } }
        try checkFailure("write")
        if taken == bytes.byteCount { return }
        bytes.withUnsafeBytes { queue += $0[taken...] }
        try watch()
    }

    /// Waits until everything written is in the pipe, which does not mean that it has been read.
    /// - Throws: As ``write(_:)``.
    nonisolated(nonsending) public func flush() async throws(LoopError) {
        try core.checkOnLoop("flush")
        while unsentByteCount > 0 { try await wait("flush") }
        try checkFailure("flush")
        if descriptor < 0 { throw .connectionClosed(operation: "flush") }
    }

    /// Below 0 is 0: an empty queue is never too much.
    private var highWaterMark: Int { max(0, writeHighWaterMark) }

    nonisolated(nonsending) private func wait(_ operation: StaticString) async throws(LoopError) {
        try await waits.wait(operation)
        try checkFailure(operation)
        if descriptor < 0 { throw .connectionClosed(operation: "\(operation)") }
    }

    private func checkFailure(_ operation: StaticString) throws(LoopError) {
        if failure < 0 { throw .io(IOError(errno: failure, operation: "\(operation) to a pipe")) }
    }

    /// Writes what there is room for, and returns how much that was.
    private func put(_ bytes: UnsafeRawBufferPointer) -> Int {
        var taken = 0
        for _ in 0..<pipeTurns where taken < bytes.count {
            let result = lc_pipe_write(
                descriptor, kind, bytes.baseAddress! + taken, min(bytes.count - taken, pipeChunk))
            if result == -Int(EAGAIN) { break }
            if result < 0 {
                failure = Int32(result)
                break
            }
            taken += result
        }
        return taken
    }

    /// The watch keeps the writer alive.
    private func watch() throws(LoopError) {
        if isWatched { return }
        do {
            _ = try core.watch(descriptor, .write, onFailure: { [self] _ in watchFailed() }) { [self] in writeQueued() }
            isWatched = true
        } catch .notPollable where kind == LC_PIPE_DEVICE {
            // It never keeps a writer waiting.
            _ = try LoopCore.callSoon(core.loop) { [self] in try writeFurther() }
        }
    }

    /// What is queued stays. It goes once the kernel has room for a watch, or the pipe for the bytes.
    private func watchFailed() {
        isWatched = false
        do { try core.retryWatch { [self] in try writeFurther() } } catch {
            failure = -ENOMEM
            queue = []
            written = 0
            waits.runAll()
        }
    }

    private func writeFurther() throws {
        writeQueued()
        if unsentByteCount > 0 { try watch() }
    }

    private func writeQueued() {
        if descriptor < 0 { return }
        written += queue.withUnsafeBytes { put(UnsafeRawBufferPointer(rebasing: $0[written...])) }
        if failure < 0 || written == queue.count {
            queue.removeAll(keepingCapacity: failure == 0 && queue.count <= pipeChunk)
            written = 0
            unwatch()
            if isClosing { return closeNow() }
        } else if written > 1 << 20, written > queue.count / 2 {
            queue.removeFirst(written)
            written = 0
        }
        if unsentByteCount <= highWaterMark / 4 { waits.runAll() }
    }

    private func unwatch() {
        if isWatched { _ = core.unwatch(descriptor, .write) }
        isWatched = false
    }

    // MARK: The reader

    /// Waits until nobody will read any more; of a socket, also until it has something to say. So one that has nothing
    /// to write now can notice.
    /// - Throws: `.cancelled`; `.connectionClosed` once it is closed on this side; `.notPollable` for devices that
    ///   have no readiness; `.closed`, `.wrongThread`.
    nonisolated(nonsending) public func waitForReaderToLeave() async throws(LoopError) {
        try core.checkOnLoop("waitForReaderToLeave")
        if descriptor < 0 { throw .connectionClosed(operation: "waitForReaderToLeave") }
        if failure < 0 || lc_pipe_reader_left(descriptor) { return }
        if !isReaderWatched {
            // What a writing end can be read for is its end.
            _ = try core.watch(descriptor, .read, onFailure: { [self] in readerWatchFailed($0) }) { [self] in
                readerLeft()
            }
            isReaderWatched = true
        }
        do { try await leaving.wait("waitForReaderToLeave") } catch {
            if leaving.isEmpty, core.isOnLoop { unwatchReader() }
            throw error
        }
        if descriptor < 0 { throw .connectionClosed(operation: "waitForReaderToLeave") }
    }

    private func readerWatchFailed(_ error: LoopError) {
        isReaderWatched = false
        leaving.failAll(error)
    }

    private func readerLeft() {
        unwatchReader()
        leaving.runAll()
    }

    private func unwatchReader() {
        if isReaderWatched { _ = core.unwatch(descriptor, .read) }
        isReaderWatched = false
    }

    // MARK: The end

    /// Closes politely: writes what is queued, then closes the descriptor. Returns once it is closed. If the reader has
    /// left, what is queued is dropped without a word. Calling it again does nothing.
    nonisolated(nonsending) public func close() async {
        closeSoon()
        guard core.isOnLoop else { return }
        while descriptor >= 0 { await waits.waitUncancelled() }
    }

    /// Closes politely without waiting for it. Any thread.
    public func closeSoon() {
        guard isReachable else { return core.cancelSoon { self.closeSoon() } }
        if unsentByteCount == 0 { closeNow() }
        isClosing = true
    }

    /// Closes at once; what is queued is dropped. Any thread.
    public func abort() {
        guard isReachable else { return core.cancelSoon { self.abort() } }
        closeNow()
    }

    private var isReachable: Bool { core.isOnLoop || !lc_loop_is_running(core.loop) }

    private func closeNow() {
        if descriptor < 0 { return }
        unwatch()
        unwatchReader()
        closeDescriptor(descriptor)
        descriptor = -1
        queue = []
        written = 0
        waits.resumeAll()
        leaving.resumeAll()
    }

    func loopClosed(isForked: Bool) { closeNow() }
}
