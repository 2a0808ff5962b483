// SPDX-License-Identifier: Apache-2.0
//
// Releasing.swift: a connection's descriptor goes to somebody else.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What ``Connection/release()`` hands over.
public struct ReleasedConnection: Sendable {
    /// The caller's from here on, who closes it. It stays non-blocking and close-on-exec.
    public let descriptor: Int32
    /// What had arrived and nobody had read, in order: it goes before whatever is read from the descriptor next.
    public let received: [UInt8]
}

extension Connection {
    /// Gives the descriptor to the caller, and the peer sees nothing of it: for another process, a library that wants
    /// a descriptor, a ``Socket``, or another loop. The connection is closed then; its addresses can still be read.
    ///
    /// First waits until the kernel has accepted what was written, and has let go of what it was receiving. Until then
    /// writes throw `.busy`, as do reads that would wait. No byte is lost: what had arrived comes with the descriptor, and
    /// the rest can be read from it, as can the end of the stream. A handler is told nothing more but, in the next pass,
    /// ``StreamHandler/lost(_:error:)`` without an error.
    ///
    /// - Throws: And then nothing has changed, and bytes that have arrived can be read as before. `.busy` while a read
    ///   or write waits, or a file is sent; `.cancelled` if the task is while it waits; `.connectionClosed`, also if
    ///   it is closed meanwhile; `.wrongThread`; `.io` with the errno that broke the connection.
    /// - Note: On the connection's loop. Costs the wait, mostly one pass, and a copy of ``ReleasedConnection/received``:
    ///   on a ``ProactorLoop``, what the loop has received ahead; on a ``SelectorLoop`` it is mostly empty.
    nonisolated(nonsending) public func release() async throws(LoopError) -> ReleasedConnection {
        try checkOnLoop("release")
        let begun = lc_stream_begin_leave(stream)
        if begun == -EAGAIN {
            try await waitToLeave()
        } else if begun < 0 {
            throw LoopError(core: begun, operation: "release")
        }
        var descriptor: Int32 = -1
        let result = lc_stream_leave(stream, &descriptor)
        if result < 0 { throw LoopError(core: result, operation: "release") }
        var received: [UInt8] = []
        while let buffer = lc_stream_take_left(stream) {
            ReceivedBytes(buffer).withUnsafeBytes { received += $0 }
        }
        return ReleasedConnection(descriptor: descriptor, received: received)
    }

    nonisolated(nonsending) private func waitToLeave() async throws(LoopError) {
        lc_stream_prepare_send(stream)
        _ = await waitToSend { lc_stream_wait_send(stream, $0, 0) }
        if lc_loop_is_closed(core.loop) { throw .connectionClosed(operation: "release") }
        if lc_stream_take_send_cancelled(stream) {
            lc_stream_stay(stream)
            throw .cancelled(operation: "release")
        }
    }
}
