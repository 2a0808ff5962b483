// SPDX-License-Identifier: Apache-2.0
//
// SocketTransfer.swift: bytes in and out of a socket that the caller drives.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A transfer that did not come to its end, and how far it came.
public struct SendError: Error, Sendable, Hashable, CustomStringConvertible {
    /// So many bytes were accepted by the kernel before it ended. Send what is behind them to go on.
    public let bytesSent: Int
    /// Why it ended.
    public let cause: LoopError
    public init(bytesSent: Int, cause: LoopError) {
        self.bytesSent = bytesSent
        self.cause = cause
    }
    public var description: String { "\(cause) (\(bytesSent) bytes were sent.)" }
}

/// So much is sent before the loop gets a turn, however fast the peer takes it.
private let bytesPerTurn = 1 << 20
/// So much is received at once, however much may be.
let receivedBytesMax = 1 << 20

extension Socket {
    // MARK: Receive

    /// Receives up to `max` bytes: at once if some are there, or else as soon as some arrive.
    /// - Returns: No bytes: the peer has finished sending.
    /// - Throws: `.cancelled`, and then no byte is lost; `.busy` while another task receives; `.connectionClosed`;
    ///   `.ownedByTransport`; `.closed`; `.io`, with `EINVAL` if `max` is not positive.
    nonisolated(nonsending) public func receive(max: Int) async throws(LoopError) -> [UInt8] {
        if max <= 0 { throw .io(IOError(errno: EINVAL, operation: "receive (max: \(max))")) }
        let size = min(max, receivedBytesMax)
        try await take(.reading, "receive")
        defer { give(.reading) }
        while true {
            var result = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                result = lc_socket_receive(descriptor, buffer.baseAddress, size)
                count = Swift.max(result, 0)
            }
            if result >= 0 { return bytes }
            try await retry(result, .reading, "receive")
        }
    }

    /// Receives into memory of the caller, which is written to only while bytes are there, not during the wait.
    /// - Returns: How many bytes were received; 0: the peer has finished sending.
    /// - Throws: As ``receive(max:)``; `.io` with `EINVAL` if there is no room.
    nonisolated(nonsending) public func receive(
        into buffer: UnsafeMutableRawBufferPointer
    ) async throws(LoopError) -> Int {
        guard let base = buffer.baseAddress, buffer.count > 0 else {
            throw .io(IOError(errno: EINVAL, operation: "receive (into no bytes)"))
        }
        try await take(.reading, "receive")
        defer { give(.reading) }
        while true {
            let result = lc_socket_receive(descriptor, base, buffer.count)
            if result >= 0 { return result }
            try await retry(result, .reading, "receive")
        }
    }

    /// Receives into a span of the caller's, as ``receive(into:)-(UnsafeMutableRawBufferPointer)`` does.
    nonisolated(nonsending) public func receive(into span: inout MutableRawSpan) async throws(LoopError) -> Int {
        if span.byteCount == 0 { throw .io(IOError(errno: EINVAL, operation: "receive (into no bytes)")) }
        try await take(.reading, "receive")
        defer { give(.reading) }
        while true {
            let result = span.withUnsafeMutableBytes { lc_socket_receive(descriptor, $0.baseAddress, $0.count) }
            if result >= 0 { return result }
            try await retry(result, .reading, "receive")
        }
    }

    nonisolated(nonsending) func retry(
        _ result: Int, _ side: SocketSide, _ operation: StaticString
    ) async throws(LoopError) {
        if result != -Int(EAGAIN) {
            throw .io(IOError(errno: Int32(truncatingIfNeeded: result), operation: "\(operation)"))
        }
        try await wait(side, operation)
    }

    // MARK: Send

    /// Sends all of `bytes`, waiting whenever the kernel has no room.
    /// - Throws: ``SendError``, which says how many bytes were sent: of a `.cancelled` task, too.
    nonisolated(nonsending) public func sendAll(_ bytes: [UInt8]) async throws(SendError) {
        var sent = 0
        do throws(LoopError) {
            try await take(.writing, "send")
            defer { give(.writing) }
            try await send(bytes, &sent)
        } catch {
            throw SendError(bytesSent: sent, cause: error)
        }
    }

    nonisolated(nonsending) func send(_ bytes: [UInt8], _ sent: inout Int) async throws(LoopError) {
        var turnEnd = sent + bytesPerTurn
        while sent < bytes.count {
            let first = sent
            let result = bytes.withUnsafeBytes {
                lc_socket_send(descriptor, $0.baseAddress! + first, min($0.count - first, bytesPerTurn))
            }
            if result >= 0 { sent += result }
            if result < 0 { try await retry(result, .writing, "send") }
            guard sent >= turnEnd, sent < bytes.count else { continue }
            try await wait(.writing, "send")
            turnEnd = sent + bytesPerTurn
        }
    }

    // MARK: Files

    /// Sends `count` bytes of a file, or what there is, without bringing them into this process.
    ///
    /// Reads that miss the page cache hold up the loop. The file's position is `offset` and what was sent, also after an
    /// error or a cancel.
    /// - Parameters:
    ///   - file: A regular file's descriptor. It stays the caller's.
    ///   - count: `nil`: up to the end.
    ///   - fallback: Whether to read and send pieces of 256 KiB if the kernel cannot send this file to this socket.
    /// - Returns: How many bytes were sent; 0 for an empty file.
    /// - Throws: ``SendError``: `.sendFileNotAvailable` if the kernel cannot, and then nothing was sent; `.io` with
    ///   `EINVAL` for a negative offset, or a count that is not positive.
    @discardableResult
    nonisolated(nonsending) public func sendFile(
        _ file: Int32, offset: Int64 = 0, count: Int? = nil, fallback: Bool = true
    ) async throws(SendError) -> Int {
        var sent = 0
        do throws(LoopError) {
            if offset < 0 { throw .io(IOError(errno: EINVAL, operation: "sendFile (offset: \(offset))")) }
            if let count, count <= 0 { throw .io(IOError(errno: EINVAL, operation: "sendFile (count: \(count))")) }
            try await take(.writing, "sendFile")
            defer { give(.writing) }
            // What is no regular file may have no position.
            defer { lseek(file, off_t(offset) + off_t(sent), SEEK_SET) }
            let end = count ?? .max
            if try await !sendFile(file, offset, end, &sent) {
                if !fallback { throw .sendFileNotAvailable(descriptor: file) }
                try await copyFile(file, offset, end, &sent)
            }
            return sent
        } catch {
            throw SendError(bytesSent: sent, cause: error)
        }
    }

    /// - Returns: False: the kernel cannot, and nothing was sent.
    private nonisolated(nonsending) func sendFile(
        _ file: Int32, _ offset: Int64, _ count: Int, _ sent: inout Int
    ) async throws(LoopError) -> Bool {
        var turnEnd = bytesPerTurn
        while sent < count {
            var at = offset + Int64(sent)
            let result = lc_socket_send_file(descriptor, file, &at, min(count - sent, bytesPerTurn))
            if result == 0 { break }
            if result > 0 { sent += result }
            if result < 0 {
                if sent == 0, [EINVAL, ENOSYS, EOPNOTSUPP, ESPIPE].contains(Int32(-result)) { return false }
                try await retry(result, .writing, "sendFile")
            }
            guard sent >= turnEnd, sent < count else { continue }
            try await wait(.writing, "sendFile")
            turnEnd = sent + bytesPerTurn
        }
        return true
    }

    /// Not yet: reading on another thread, worth doing once the loops have some.
    private nonisolated(nonsending) func copyFile(
        _ file: Int32, _ offset: Int64, _ count: Int, _ sent: inout Int
    ) async throws(LoopError) {
        while sent < count {
            let size = min(count - sent, 256 << 10)
            let at = off_t(offset) + off_t(sent)
            var failure: Int32 = 0
            let piece = [UInt8](unsafeUninitializedCapacity: size) { buffer, length in
                var result: Int
                repeat { result = pread(file, buffer.baseAddress, size, at) } while result < 0 && errno == EINTR
                if result < 0 { failure = errno }
                length = max(result, 0)
            }
            if failure == ESPIPE { throw .sendFileNotAvailable(descriptor: file) }
            if failure != 0 { throw .io(IOError(errno: failure, operation: "read the file")) }
            if piece.isEmpty { return }
            var part = 0
            defer { sent += part }
            try await send(piece, &part)
        }
    }
}
