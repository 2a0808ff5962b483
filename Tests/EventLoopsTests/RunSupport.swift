// SPDX-License-Identifier: Apache-2.0
//
// RunSupport.swift: what the tests of running, calls and timers share: journals, latches, witnesses, pipes.

import CLoopCore
import CSimulator
import Dispatch
import EventLoops
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What happened, in order. Any thread.
///
/// Under a lock that ThreadSanitizer knows: it does not see what the waiting half of `Mutex` does.
final class Journal<Entry: Sendable>: @unchecked Sendable {
    private var list: [Entry] = []
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    init() { pthread_mutex_init(lock, nil) }

    deinit {
        pthread_mutex_destroy(lock)
        lock.deallocate()
    }

    func note(_ entry: Entry) {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        list.append(entry)
    }

    var entries: [Entry] {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return list
    }
}

/// Closed until something has happened. Any thread.
final class Latch: Sendable {
    private let opened = Atomic(false)
    private let semaphore = DispatchSemaphore(value: 0)

    var isOpen: Bool { opened.load(ordering: .sequentiallyConsistent) }

    func open() {
        opened.store(true, ordering: .sequentiallyConsistent)
        semaphore.signal()
    }

    /// Blocks until it is open. False: it was not within a minute, so it never will be.
    func wait() -> Bool {
        guard semaphore.wait(timeout: .now() + 60) == .success else { return false }
        semaphore.signal()
        return true
    }
}

/// Something to capture: weak references tell whether it still lives, and its end can be acted upon.
final class Witness: Sendable {
    private let atEnd: @Sendable () -> Void
    init(_ atEnd: @escaping @Sendable () -> Void = {}) { self.atEnd = atEnd }
    deinit { atEnd() }
}

/// A pipe with non-blocking ends.
final class PipePair: Sendable {
    let readEnd: Int32
    let writeEnd: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw IOError(errno: errno, operation: "pipe") }
        (readEnd, writeEnd) = (ends[0], ends[1])
        for end in ends {
            guard fcntl(end, F_SETFL, O_NONBLOCK) == 0, fcntl(end, F_SETFD, FD_CLOEXEC) == 0 else {
                throw IOError(errno: errno, operation: "fcntl")
            }
        }
    }

    /// Makes the read end readable.
    func fill() { #expect(write(writeEnd, "x", 1) == 1) }

    /// Makes the write end not writable.
    func fillUp() { while write(writeEnd, "0123456789abcdef", 16) > 0 {} }

    func close() { for end in [readEnd, writeEnd] { closeDescriptor(end) } }
}

private func closeDescriptor(_ descriptor: Int32) { close(descriptor) }

/// Calls `body` on a thread that shares no descriptors with the rest of the process and has none to begin with, beside
/// the standard ones. There they can be counted while other tests run.
///
/// What is opened there must be closed there: elsewhere the same number is another descriptor. So `body` starts neither
/// tasks, which may end on another thread, nor threads, which would have these descriptors too, nor uses Dispatch,
/// which may start some.
func withDescriptorsOfItsOwn<Success: Sendable>(_ body: @escaping @Sendable () throws -> Success) throws -> Success {
    try onJoinedThread {
        // The headers show close_range only to those who define _GNU_SOURCE.
        typealias CloseRange = @convention(c) (UInt32, UInt32, Int32) -> Int32
        let symbol = try #require(dlsym(dlopen(nil, RTLD_NOW), "close_range"))
        let closeRange = unsafeBitCast(symbol, to: CloseRange.self)
        let unshare: Int32 = 1 << 1
        guard closeRange(3, .max, unshare) == 0 else { throw IOError(errno: errno, operation: "close_range") }
        return try body()
    }
}

/// How many descriptors the calling thread has.
func descriptorCount() throws -> Int {
    guard let directory = opendir("/proc/thread-self/fd") else { throw IOError(errno: errno, operation: "opendir") }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count + Int(sim_thread_descriptors("", nil))
}

/// Starts `body` on a thread of its own and does not wait for it.
func onOtherThread(_ body: @escaping @Sendable () -> Void) {
    DispatchQueue(label: "other thread").async(execute: body)
}

/// Waits until a thread of this process sleeps in the kernel. False: it did not within a minute.
func waitUntilAsleep(_ thread: Int64) -> Bool {
    let limit = LoopInstant.now.advanced(by: .seconds(60))
    while LoopInstant.now < limit {
        guard let file = fopen("/proc/self/task/\(thread)/stat", "re") else { return false }
        var line = [CChar](repeating: 0, count: 512)
        let got = fread(&line, 1, line.count - 1, file)
        fclose(file)
        // "pid (name) state ...", and a name may hold anything but comes first.
        let text = line.prefix(got)
        if let end = text.lastIndex(of: CChar(UInt8(ascii: ")"))), text.count > end + 2,
            text[end + 2] == CChar(UInt8(ascii: "S"))
        {
            return true
        }
        sched_yield()
    }
    return false
}

/// Stops a loop that runs for two minutes, and records that.
private struct Watchdog {
    private let expired = Latch()
    private let work: DispatchWorkItem
    private let sourceLocation: SourceLocation

    init(_ loop: any Loop, _ sourceLocation: SourceLocation) {
        self.sourceLocation = sourceLocation
        work = DispatchWorkItem { [expired, weak loop] in
            expired.open()
            loop?.stop()
        }
        DispatchQueue.global().asyncAfter(deadline: .now() + 120, execute: work)
    }

    func end() {
        work.cancel()
        if expired.isOpen {
            Issue.record("the loop ran for two minutes and had to be stopped", sourceLocation: sourceLocation)
        }
    }
}

extension Loop {
    /// Runs `body`, which blocks in this loop. If it takes two minutes, stops the loop and records that.
    func watched<Success>(
        sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Success
    ) rethrows -> Success {
        let watchdog = Watchdog(self, sourceLocation)
        defer { watchdog.end() }
        return try body()
    }

    /// ``Loop/run()``, watched.
    func runWatched(sourceLocation: SourceLocation = #_sourceLocation) throws {
        try watched(sourceLocation: sourceLocation) { try run() }
    }

    /// ``Loop/run(until:)``, watched.
    func runWatched<Success>(
        sourceLocation: SourceLocation = #_sourceLocation, until body: sending @escaping () async throws -> Success
    ) throws -> Success {
        let watchdog = Watchdog(self, sourceLocation)
        defer { watchdog.end() }
        return try run(until: body)
    }

    /// Runs one pass after another until `done`; none of them sleeps. False: it was not, after a great many.
    func pass(until done: () -> Bool) throws -> Bool {
        for _ in 0..<1_000_000 where !done() { try runOnce(.noWait) }
        return done()
    }
}
