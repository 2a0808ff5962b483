// SPDX-License-Identifier: Apache-2.0
//
// DatagramHandler.swift: datagrams as callbacks rather than as what a task waits for.

import CLoopCore

/// Told what happens at a datagram socket, on its loop's thread. The fastest way to serve: no task, no suspension, and
/// no allocation per datagram. Source: asyncio's `DatagramProtocol`.
public protocol DatagramHandler: AnyObject {
    /// A datagram arrived.
    /// - Parameters:
    ///   - bytes: Lent for the length of the call; empty for an empty datagram, which is no end.
    ///   - address: Who sent it, and where an answer goes.
    ///   - isTruncated: Whether it was larger than ``DatagramOptions/maximumDatagramSize``, and its end is lost.
    func datagramReceived(
        _ bytes: RawSpan, from address: DatagramAddress, isTruncated: Bool, on socket: DatagramSocket)
    /// Something went wrong with a datagram that was sent earlier, or with a receive. The socket lives on.
    func errorReceived(_ error: LoopError, on socket: DatagramSocket)
    /// More than ``DatagramSocket/writeHighWaterMark`` bytes are queued. What is sent nevertheless is queued as well.
    func pauseWriting(_ socket: DatagramSocket)
    /// At most ``DatagramSocket/writeLowWaterMark`` bytes are queued again.
    func resumeWriting(_ socket: DatagramSocket)
    /// The socket is closed: the last call. Never made within a call to close it.
    func connectionLost(_ socket: DatagramSocket)
}

extension DatagramHandler {
    public func errorReceived(_ error: LoopError, on socket: DatagramSocket) {}
    public func pauseWriting(_ socket: DatagramSocket) {}
    public func resumeWriting(_ socket: DatagramSocket) {}
    public func connectionLost(_ socket: DatagramSocket) {}
}
