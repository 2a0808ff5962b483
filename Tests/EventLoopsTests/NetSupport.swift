// SPDX-License-Identifier: Apache-2.0
//
// NetSupport.swift: the other ends of connections: plain blocking sockets, none of whose calls takes for ever; and what
// the tests of connections share.

import CSimulator
import Synchronization
import TestSupportC
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

// MARK: Loops

/// Runs `body` as a task of a new loop, on a thread of its own. A loop that still runs after a long while is stopped,
/// so that a wait that never ends fails its test rather than hang it.
func onLoop<Success: Sendable>(
    _ kind: LoopKind, options: LoopOptions = .forTests,
    _ body: @escaping @Sendable (any Loop) async throws -> Success
) async throws -> Success {
    try await onThread {
        let loop = try kind.makeLoop(options: options)
        defer { try? loop.close() }
        try watch(loop)
        return try loop.run { try await body(loop) }
    }
}

/// The same by the kind's name, which is what a process of its own can be told.
func onLoop(
    named kind: String, options: LoopOptions = .forTests, _ body: @escaping @Sendable (any Loop) async throws -> Void
) async throws {
    try await onLoop(try #require(LoopKind(rawValue: kind)), options: options, body)
}

/// Stops a loop that hangs.
func watch(_ loop: any Loop) throws {
    try loop.callLater(.seconds(40)) { [weak loop] in
        Issue.record("Something waits for ever; the loop is stopped.")
        loop?.stop()
    }
}

/// A loopback address for one test alone: a port that is closed there stays closed, whatever other tests listen to.
func ownHost(_ kind: LoopKind, line: Int = #line) -> String {
    "127.\(kind == .selector ? 1 : 2).\(line / 250).\(line % 250 + 1)"
}

struct Impatience: Error, CustomStringConvertible {
    let description: String
}

/// Lets the loop run until `condition` holds.
func until(
    _ what: String, on loop: any Loop, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () -> Bool
) async throws {
    let deadline = LoopInstant.now.advanced(by: .seconds(20))
    while !condition() {
        if .now > deadline {
            Issue.record("never: \(what)", sourceLocation: sourceLocation)
            throw Impatience(description: what)
        }
        try await loop.sleep(for: .milliseconds(1))
    }
}

/// Waits, off any loop, until `condition` holds: for what comes to its end after the loop's close.
func eventually(
    _ what: String, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () -> Bool
) async throws {
    let deadline = LoopInstant.now.advanced(by: .seconds(20))
    while !condition() {
        if .now > deadline {
            Issue.record("never: \(what)", sourceLocation: sourceLocation)
            throw Impatience(description: what)
        }
        await Task.yield()
    }
}

extension Loop {
    /// Operations that wait, in the kernel or for readiness.
    var waitingOperations: Int { statistics.operationsInKernel + statistics.armedOperations }
}

/// What happened, in order; from any thread.
final class Log<Element: Sendable>: Sendable {
    private let entries = Lock<[Element]>([])
    func append(_ entry: Element) { entries.withLock { $0.append(entry) } }
    var all: [Element] { entries.withLock { $0 } }
}

// MARK: Errors

/// The error that `body` throws, if it is one of ours.
func thrown(_ body: () async throws -> Void) async -> LoopError? {
    do { try await body() } catch { return error as? LoopError }
    return nil
}

extension LoopError? {
    /// The errno of an `.io`, else 0.
    var errno: Int32 {
        if case .io(let error) = self { error.errno } else { 0 }
    }
}

// MARK: Peers

/// A blocking stream socket. Any thread. Each call gives up after a while, with `EAGAIN`.
final class Peer: Sendable {
    let descriptor: Int32
    private let isOpen = Atomic(true)

    init(descriptor: Int32) {
        self.descriptor = descriptor
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Connects to a port of this machine, which the kernel does also for a listener that does not accept yet.
    convenience init(to port: UInt16, at host: String = "127.0.0.1", receiveBuffer: Int32? = nil) throws {
        let descriptor = try check(socket(AF_INET, streamType | closeOnExec, 0), "socket")
        self.init(descriptor: descriptor)
        if var receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = loopback(port)
        inet_pton(AF_INET, host, &address.sin_addr)
        try check(
            withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }, "connect")
    }

    /// A peer, and the other end of its connection.
    static func pair() throws -> (descriptor: Int32, peer: Peer) {
        var ends: [Int32] = [-1, -1]
        try check(socketpair(AF_UNIX, streamType | closeOnExec, 0, &ends), "socketpair")
        return (ends[0], Peer(descriptor: ends[1]))
    }

    deinit { close() }

    func close() {
        if isOpen.exchange(false, ordering: .relaxed) { _ = posixClose(descriptor) }
    }

    /// Closes so that the other end sees a reset. TCP alone.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
        close()
    }

    func finishWriting() throws { try check(shutdown(descriptor, Int32(SHUT_WR)), "shutdown") }

    /// Sends all of it.
    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            sent += try check(
                bytes.withUnsafeBytes {
                    posixSend(descriptor, $0.baseAddress! + sent, bytes.count - sent, noSignal)
                }, "send")
        }
    }

    /// The next bytes; none at the end.
    func receive(_ max: Int = 64 * 1024) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: max) { buffer, count in
            var result: Int
            repeat { result = recv(descriptor, buffer.baseAddress, max, 0) } while result < 0 && errno == EINTR
            count = try check(result, "receive")
        }
    }

    /// Exactly so many bytes, or fewer if the end comes first.
    func receive(exactly count: Int) throws -> [UInt8] {
        var all: [UInt8] = []
        while all.count < count {
            let part = try receive(min(count - all.count, 64 * 1024))
            if part.isEmpty { break }
            all += part
        }
        return all
    }

    /// Everything until the end.
    func receiveToEnd(chunk: Int = 64 * 1024) throws -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let part = try receive(chunk)
            if part.isEmpty { return all }
            all += part
        }
    }

    /// 0 if the end comes next, else the errno that does; `nil` if bytes do.
    func receiveEnd() -> Int32? {
        do { return try receive(1).isEmpty ? 0 : nil } catch { return (error as? IOError)?.errno }
    }
}

/// A socket that listens on a port of this machine, and of which nobody accepts.
func makeFullListener() throws -> (descriptor: Int32, port: UInt16) {
    let descriptor = try check(socket(AF_INET, streamType | closeOnExec, 0), "socket")
    var address = loopback(0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try withUnsafeMutablePointer(to: &address) {
        try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            try check(bind(descriptor, $0, length), "bind")
            try check(listen(descriptor, 0), "listen")
            try check(getsockname(descriptor, $0, &length), "getsockname")
        }
    }
    return (descriptor, UInt16(bigEndian: address.sin_port))
}

private func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
}

#if canImport(Glibc)
private let streamType = Int32(SOCK_STREAM.rawValue)
private let closeOnExec = Int32(SOCK_CLOEXEC.rawValue)
let datagramType = Int32(SOCK_DGRAM.rawValue)
#else
private let streamType = SOCK_STREAM
private let closeOnExec = SOCK_CLOEXEC
let datagramType = SOCK_DGRAM
#endif
private let noSignal = Int32(MSG_NOSIGNAL)
private func posixSend(_ fd: Int32, _ bytes: UnsafeRawPointer, _ count: Int, _ flags: Int32) -> Int {
    send(fd, bytes, count, flags)
}
private func posixClose(_ fd: Int32) -> Int32 { close(fd) }

@discardableResult
func check<Result: SignedInteger>(_ result: Result, _ operation: String) throws -> Result {
    if result < 0 { throw IOError(errno: errno, operation: "peer: \(operation)") }
    return result
}

// MARK: Connections

/// A TCP connection, accepted on the loop, and its peer. Nothing of the listener is left.
func makeConnection(on loop: any Loop, receiveBuffer: Int32? = nil) async throws -> (Connection, Peer) {
    let before = loop.waitingOperations
    let listener = try Listener(on: loop, port: 0)
    let peer = try Peer(to: listener.address.port, receiveBuffer: receiveBuffer)
    let connection = try await listener.accept()
    listener.close()
    try await until("the accept has ended", on: loop) { loop.waitingOperations <= before }
    return (connection, peer)
}

/// A connection over a pair of local sockets, and its peer.
func makePair(on loop: any Loop) throws -> (Connection, Peer) {
    let (descriptor, peer) = try Peer.pair()
    return (try Connection(adopting: descriptor, on: loop), peer)
}

extension Connection {
    func readToEnd() async throws -> [UInt8] {
        var all: [UInt8] = []
        while let bytes = try await read() { bytes.withUnsafeBytes { all += $0 } }
        return all
    }

    /// At least so many bytes, or fewer if the end comes first.
    func read(atLeast count: Int) async throws -> [UInt8] {
        var all: [UInt8] = []
        while all.count < count, let bytes = try await read() { bytes.withUnsafeBytes { all += $0 } }
        return all
    }

    /// Sends back what comes until the end comes, and closes.
    func echo() async throws {
        while let bytes = try await read() { try await write(bytes) }
        await close()
    }
}

/// A prime number of bytes, so that no size of buffer or read divides it.
private let patternBlock: [UInt8] = (0..<65_521).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8)) }

/// Bytes of which no two parts of a transfer are likely to look alike.
func pattern(_ count: Int, from first: Int = 0) -> [UInt8] {
    var all: [UInt8] = []
    all.reserveCapacity(count)
    var offset = first % patternBlock.count
    while all.count < count {
        all += patternBlock[offset...].prefix(count - all.count)
        offset = 0
    }
    return all
}

/// How what was received differs from what was expected, if it does. For transfers too long to be printed.
func difference(_ received: [UInt8], _ expected: [UInt8]) -> String? {
    if received == expected { return nil }
    let common = zip(received, expected).prefix { $0 == $1 }.count
    return "\(received.count) bytes rather than \(expected.count), alike up to byte \(common)"
}

// MARK: The process

/// The names in a directory, in no order.
func entries(of directory: String) -> [String] {
    guard let handle = opendir(directory) else { return [] }
    defer { closedir(handle) }
    var names: [String] = []
    while let entry = readdir(handle) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names
}

/// Open descriptors of this process that are of a kind, as in `"socket:"` or `"anon_inode:[eventfd]"`. Only in a
/// process of its own are they all the test's, and there too the runtime opens and closes some of other kinds.
func openDescriptorCount(of kind: String) -> Int {
    if isSimulated { return Int(sim_process_descriptors(kind, nil)) }
    return entries(of: "/proc/self/fd").count { number in
        var target = [UInt8](repeating: 0, count: 128)
        let length = target.withUnsafeMutableBytes { readlink("/proc/self/fd/\(number)", $0.baseAddress!, $0.count) }
        return length > 0 && String(decoding: target[..<length], as: UTF8.self).hasPrefix(kind)
    }
}

/// The names of this process's threads, those of the kernel among them.
func threadNames() -> [String] {
    entries(of: "/proc/self/task").map { thread in
        let file = open("/proc/self/task/\(thread)/comm", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        let bytes = [UInt8](unsafeUninitializedCapacity: 64) { buffer, count in
            count = max(0, read(file, buffer.baseAddress, 64))
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").first.map(String.init) ?? ""
    }
}

/// The kernel's number of this thread, which the C library does not tell Swift.
func threadID() -> Int {
    var target = [UInt8](repeating: 0, count: 128)
    let length = target.withUnsafeMutableBytes { readlink("/proc/thread-self", $0.baseAddress!, $0.count) }
    precondition(length > 0, "There is no /proc/thread-self.")
    return Int(String(decoding: target[..<length], as: UTF8.self).split(separator: "/").last!)!
}

/// A process that has used up its descriptors. In a process of its own.
final class DescriptorShortage: Sendable {
    private let before: rlimit
    private let fillers: Lock<[Int32]>

    /// Leaves this many to be opened.
    init(leaving count: Int) throws {
        var limit = rlimit()
        try check(getrlimit(descriptorLimit, &limit), "getrlimit")
        before = limit
        let filler = try check(isSimulated ? test_eventfd(0) : open("/dev/null", O_RDONLY | O_CLOEXEC), "open")
        // Room for those in use, whatever their numbers, and for some to be given up.
        limit.rlim_cur = rlim_t(isSimulated ? 256 : max(filler + 1, 256))
        try check(setrlimit(descriptorLimit, &limit), "setrlimit")
        fillers = Lock([filler])
        refill(leaving: count)
    }

    /// Leaves this many, now that others may have closed some.
    func refill(leaving count: Int) {
        fillers.withLock { fillers in
            while true {
                let filler = fcntl(fillers[0], F_DUPFD_CLOEXEC, 0)
                if filler < 0 { break }
                fillers.append(filler)
            }
            for _ in 0..<count { _ = posixClose(fillers.removeLast()) }
        }
    }

    /// Leaves one more.
    func giveOne() { fillers.withLock { _ = posixClose($0.removeLast()) } }

    func end() {
        fillers.withLock {
            for filler in $0 { _ = posixClose(filler) }
            $0 = []
        }
        var limit = before
        setrlimit(descriptorLimit, &limit)
    }
}

#if canImport(Glibc)
let descriptorLimit = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
#else
let descriptorLimit = RLIMIT_NOFILE
#endif
