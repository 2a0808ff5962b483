// SPDX-License-Identifier: Apache-2.0
//
// DatagramSupport.swift: what the tests of datagrams share: plain blocking sockets, a handler that notes, addresses.

import Synchronization
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

extension Trait where Self == ConditionTrait {
    /// The simulated kernel has no datagrams.
    static var datagrams: Self { realKernel("datagram sockets") }
}

#if canImport(Glibc)
private let closeOnExec = Int32(SOCK_CLOEXEC.rawValue)
#else
private let closeOnExec = SOCK_CLOEXEC
#endif
private func posixClose(_ fd: Int32) { close(fd) }

/// A plain datagram socket. Any thread. A receive that waits for long fails with `EAGAIN`.
final class DatagramPeer: Sendable {
    let descriptor: Int32
    private let isOpen = Atomic(true)

    init(adopting descriptor: Int32) {
        self.descriptor = descriptor
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Bound to `address`.
    convenience init(at address: DatagramAddress) throws {
        let descriptor = try check(socket(Int32(address.family), datagramType | closeOnExec, 0), "socket")
        self.init(adopting: descriptor)
        try check(address.withSockaddr { bind(descriptor, $0, $1) }, "bind")
    }

    /// Bound to a port of a host, for one test alone.
    convenience init(host: String) throws { try self.init(at: DatagramAddress(host, 0)) }

    deinit { if isOpen.load(ordering: .relaxed) { posixClose(descriptor) } }

    /// Returns once nobody is at its address: a child that another test starts has copies of all descriptors, until it
    /// executes its program.
    func close() {
        guard isOpen.exchange(false, ordering: .relaxed) else { return }
        let address = self.address
        posixClose(descriptor)
        let deadline = LoopInstant.now.advanced(by: .seconds(5))
        while isSomebody(at: address), .now < deadline { sched_yield() }
    }

    private func isSomebody(at address: DatagramAddress) -> Bool {
        let probe = socket(Int32(address.family), datagramType | closeOnExec, 0)
        defer { posixClose(probe) }
        // Of an IP address the second send is told, of a Unix socket the connect.
        return address.withSockaddr { connect(probe, $0, $1) } == 0 && posixSend(probe, [0], 1) == 1
            && posixSend(probe, [0], 1) == 1
    }

    var address: DatagramAddress { DatagramAddress(localTo: descriptor)! }

    func send(_ bytes: [UInt8], to address: DatagramAddress) throws {
        let sent = try check(
            bytes.withUnsafeBytes { bytes in
                address.withSockaddr { sendto(descriptor, bytes.baseAddress, bytes.count, 0, $0, $1) }
            }, "sendto")
        #expect(sent == bytes.count)
    }

    /// Of a connected socket, as one of a pair.
    func send(_ bytes: [UInt8]) throws {
        try check(bytes.withUnsafeBytes { posixSend(descriptor, $0.baseAddress, $0.count) }, "send")
    }

    func receive(_ max: Int = 70_000) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: max) { buffer, count in
            var result: Int
            repeat { result = recv(descriptor, buffer.baseAddress, max, 0) } while result < 0 && errno == EINTR
            count = try check(result, "receive")
        }
    }

    /// Whether nothing has arrived.
    var isEmpty: Bool {
        var byte: UInt8 = 0
        return recv(descriptor, &byte, 1, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT)) < 0 && errno == EAGAIN
    }
}

/// What `send` is refused with, asked again while a child of another test keeps the receiver alive.
func refusal(on loop: any Loop, _ send: () async throws -> Void) async throws -> LoopError? {
    for _ in 0..<5000 {
        if let error = await thrown(send) { return error }
        try await loop.sleep(for: .milliseconds(1))
    }
    return nil
}

private func posixSend(_ fd: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    send(fd, bytes, count, Int32(MSG_NOSIGNAL))
}

extension DatagramAddress {
    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: core) { address in
            UnsafeRawPointer(address).withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, address.pointee.length)
            }
        }
    }

    private static let number = Atomic(0)

    /// A name that nobody else has.
    static func unusedName() throws -> DatagramAddress {
        let number = number.add(1, ordering: .relaxed).newValue
        return try DatagramAddress(abstractName: "event-loops-\(getpid())-\(number)")
    }
}

/// A socket of the loop and a peer, connected to each other, over which order is kept and nothing is lost. The kernel
/// has room for a few datagrams only, however small.
func makeDatagramPair(
    on loop: any Loop, options: DatagramOptions = DatagramOptions()
) throws -> (DatagramSocket, DatagramPeer) {
    var ends: [Int32] = [-1, -1]
    try check(socketpair(AF_UNIX, datagramType | closeOnExec, 0, &ends), "socketpair")
    return (
        try DatagramSocket(adopting: ends[0], on: loop, options: options), DatagramPeer(adopting: ends[1])
    )
}

extension DatagramSocket {
    /// Without waiting. A literal's span would be that of integers.
    func sendNow(_ bytes: [UInt8], to address: DatagramAddress? = nil) throws {
        try send(copying: bytes.span.bytes, to: address)
    }

    /// Sends small datagrams, each with its number, until one is queued. Returns how many.
    func fill() throws -> Int {
        var count = 0
        while unsentByteCount == 0 && count < 100_000 {
            try sendNow([UInt8(truncatingIfNeeded: count)])
            count += 1
        }
        #expect(unsentByteCount == 9, "the last one is queued: a byte, and eight more")
        return count
    }
}

/// A handler that notes what it is told. On its loop's thread.
final class DatagramNotes: DatagramHandler {
    var events: [String] = []
    var datagrams: [[UInt8]] = []
    var truncated: [Bool] = []
    var addresses: [DatagramAddress] = []
    var errors: [LoopError] = []
    var onDatagram: (DatagramSocket) throws -> Void = { _ in }
    var onError: (DatagramSocket) throws -> Void = { _ in }
    var onResume: (DatagramSocket) throws -> Void = { _ in }
    private var isInside = false

    private func note(_ event: String, _ body: () throws -> Void = {}) {
        #expect(!isInside, "\(event) within another call")
        isInside = true
        events.append(event)
        #expect(throws: Never.self) { try body() }
        isInside = false
    }

    func datagramReceived(
        _ bytes: RawSpan, from address: DatagramAddress, isTruncated: Bool, on socket: DatagramSocket
    ) {
        datagrams.append(bytes.withUnsafeBytes { Array($0) })
        truncated.append(isTruncated)
        addresses.append(address)
        note("received") { try onDatagram(socket) }
    }

    func errorReceived(_ error: LoopError, on socket: DatagramSocket) {
        errors.append(error)
        note("error") { try onError(socket) }
    }

    // Within a send, which may be made within a call.
    func pauseWriting(_ socket: DatagramSocket) { events.append("pause") }
    func resumeWriting(_ socket: DatagramSocket) { note("resume") { try onResume(socket) } }
    func connectionLost(_ socket: DatagramSocket) { note("lost") }
}
