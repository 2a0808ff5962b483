// SPDX-License-Identifier: Apache-2.0
//
// SocketDescriptors.swift: descriptors that travel over Unix sockets.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Bytes, and the descriptors that came with them. Those that nobody has taken are closed with it.
public struct DescriptorMessage: ~Copyable, Sendable {
    /// Empty at the end of the stream.
    public let bytes: [UInt8]
    /// Whether descriptors were left out: more were sent than were asked for, or this process can have no more.
    public let isTruncated: Bool
    private var descriptors: [Int32]

    init(_ bytes: [UInt8], _ descriptors: [Int32], isTruncated: Bool) {
        self.bytes = bytes
        self.descriptors = descriptors
        self.isTruncated = isTruncated
    }

    deinit { for descriptor in descriptors { closeDescriptor(descriptor) } }

    /// How many have not been taken.
    public var descriptorCount: Int { descriptors.count }

    /// Hands over the descriptors, in the order they were sent, to be closed by the caller. All are close-on-exec.
    public mutating func takeDescriptors() -> [Int32] {
        defer { descriptors = [] }
        return descriptors
    }
}

extension Socket {
    /// The most descriptors that one message carries.
    public static var descriptorsPerMessage: Int { Int(LC_DESCRIPTORS_MAX) }

    /// Sends copies of `descriptors` over a Unix socket, with the first of `bytes`, and then the rest of those.
    /// - Throws: ``SendError``; the descriptors are with the peer if any byte is. `.io` with `EINVAL` for no bytes, no
    ///   descriptors or more than ``descriptorsPerMessage``; with `ETOOMANYREFS` if too many are under way.
    nonisolated(nonsending) public func send(
        descriptors: [Int32], with bytes: [UInt8]
    ) async throws(SendError) {
        var sent = 0
        do throws(LoopError) {
            try await take(.writing, "send descriptors")
            defer { give(.writing) }
            while sent == 0 {
                let result = bytes.withUnsafeBytes {
                    lc_socket_send_descriptors(descriptor, $0.baseAddress, $0.count, descriptors, descriptors.count)
                }
                if result > 0 { sent = result } else { try await retry(result, .writing, "send descriptors") }
            }
            try await send(bytes, &sent)
        } catch {
            throw SendError(bytesSent: sent, cause: error)
        }
    }

    /// Receives up to `max` bytes, and up to `descriptors` descriptors that were sent with them. Bytes sent with other
    /// descriptors come in a message of their own.
    /// - Throws: As ``receive(max:)``.
    nonisolated(nonsending) public func receiveDescriptors(
        max: Int, descriptors: Int = Socket.descriptorsPerMessage
    ) async throws(LoopError) -> DescriptorMessage {
        if max <= 0 || descriptors < 0 {
            throw .io(IOError(errno: EINVAL, operation: "receive (max: \(max), descriptors: \(descriptors))"))
        }
        try await take(.reading, "receive")
        defer { give(.reading) }
        let room = min(descriptors, Self.descriptorsPerMessage)
        let size = min(max, receivedBytesMax)
        while true {
            var result = 0
            var isTruncated = false
            var bytes: [UInt8] = []
            let received = [Int32](unsafeUninitializedCapacity: room) { passed, count in
                bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, length in
                    count = room
                    result = lc_socket_receive_descriptors(
                        descriptor, buffer.baseAddress, size, passed.baseAddress, &count, &isTruncated)
                    length = Swift.max(result, 0)
                }
            }
            if result >= 0 { return DescriptorMessage(bytes, received, isTruncated: isTruncated) }
            try await retry(result, .reading, "receive")
        }
    }
}
