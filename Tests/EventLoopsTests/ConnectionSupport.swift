// SPDX-License-Identifier: Apache-2.0
//
// ConnectionSupport.swift: what the tests of connections share.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A handler that notes what it is told. On its loop's thread.
final class Notes: StreamHandler {
    var events: [String] = []
    var bytes: [UInt8] = []
    var lostError: LoopError?
    var onReceive: (Connection) throws -> Void = { _ in }
    var onEnd: (Connection) throws -> Void = { $0.closeSoon() }

    func received(_ received: consuming ReceivedBytes, on connection: Connection) {
        events.append("received")
        bytes += received.copy()
        #expect(throws: Never.self) { try onReceive(connection) }
    }

    func ended(_ connection: Connection) {
        events.append("ended")
        #expect(throws: Never.self) { try onEnd(connection) }
    }

    func lost(_ connection: Connection, error: LoopError?) {
        events.append("lost")
        lostError = error
    }
}

/// A lease that can be handed from thread to thread, which a value that cannot be copied could not.
final class Lease: @unchecked Sendable {
    private var bytes: ReceivedBytes?
    init(_ bytes: consuming ReceivedBytes) { self.bytes = consume bytes }

    var count: Int { bytes.borrowed { $0.count } }

    /// The bytes as their span shows them.
    var spanned: [UInt8] {
        bytes.borrowed { bytes in
            let span = bytes.bytes
            return (0..<span.byteCount).map { span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        }
    }

    func take() -> ReceivedBytes { bytes.take()! }
    func giveBack() { bytes = nil }
}

extension ReceivedBytes? {
    borrowing func borrowed<Result>(_ body: (borrowing ReceivedBytes) -> Result) -> Result {
        switch self {
        case .some(let bytes): body(bytes)
        case .none: preconditionFailure("The lease is gone.")
        }
    }
}

extension Connection {
    func readLease() async throws -> Lease {
        guard let bytes = try await read() else { throw Impatience(description: "bytes before the end") }
        return Lease(bytes)
    }
}

/// The last reference to something.
final class Held: @unchecked Sendable {
    private var value: Connection?
    init(_ value: Connection) { self.value = value }
    func letGo() { value = nil }
}

extension [UInt8] {
    func repeated(upTo count: Int) -> [UInt8] {
        var all: [UInt8] = []
        all.reserveCapacity(count)
        while all.count < count { all += prefix(count - all.count) }
        return all
    }
}

extension Result {
    /// The value; an error becomes an issue.
    func get(orRecord fallback: Success) -> Success {
        switch self {
        case .success(let value): return value
        case .failure(let error):
            Issue.record(error)
            return fallback
        }
    }
}
