// SPDX-License-Identifier: Apache-2.0
//
// StreamHandler.swift: what a connection tells whoever serves it by callbacks.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Told what happens on a connection, on its loop's thread. The fastest way to serve: no task, no suspension.
///
/// The order is ``made(_:)``, any number of ``received(_:on:)``, ``ended(_:)`` perhaps, ``lost(_:error:)``; nothing comes
/// after that. What a callback throws goes to the loop's `onUnhandledError`; thrown by `received` or `ended`, it aborts the
/// connection besides, and `lost` has `.handlerFailed`. Source: asyncio's `Protocol`.
public protocol StreamHandler: AnyObject {
    /// The connection is this handler's from here on, and nothing has been received yet.
    func made(_ connection: Connection) throws
    /// Bytes arrived.
    func received(_ bytes: consuming ReceivedBytes, on connection: Connection) throws
    /// The peer has finished sending; writing still works. By default the connection is closed.
    func ended(_ connection: Connection) throws
    /// The connection is about to be closed: what could be sent has been, and nothing more will be delivered. The
    /// descriptor closes once it returns. Never called from within another call to the connection. `error` is what broke
    /// it, if anything did.
    func lost(_ connection: Connection, error: LoopError?) throws
    /// More bytes are queued than ``WriteLimits/high``. Called once, from within the call that queued them: stop
    /// writing until ``resumeWriting(_:)``.
    func pauseWriting(_ connection: Connection) throws
    /// At most ``WriteLimits/low`` bytes are queued again.
    func resumeWriting(_ connection: Connection) throws
}

extension StreamHandler {
    public func made(_ connection: Connection) {}
    public func ended(_ connection: Connection) { connection.closeSoon() }
    public func lost(_ connection: Connection, error: LoopError?) {}
    public func pauseWriting(_ connection: Connection) {}
    public func resumeWriting(_ connection: Connection) {}
}

/// A handler that receives into memory of its own. Each byte is copied once, from the loop's buffer.
///
/// Source: asyncio's `BufferedProtocol`.
public protocol BufferedStreamHandler: StreamHandler {
    /// Lends memory, of any size but none, to receive at most `hint` bytes into.
    /// - Parameter body: To be called once, with the memory. Returns how many bytes it wrote.
    func withReceiveBuffer(hint: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int) throws
    /// So many bytes have been written to the memory that was lent last.
    func received(count: Int, on connection: Connection) throws
}

/// A ``BufferedStreamHandler`` lent no memory.
public struct EmptyReceiveBuffer: Error, CustomStringConvertible {
    public var description: String { "withReceiveBuffer(hint:_:) lent no memory. Lend at least a byte." }
}

extension BufferedStreamHandler {
    public func received(_ bytes: consuming ReceivedBytes, on connection: Connection) throws {
        var used = 0
        while used < bytes.count {
            var count = 0
            try bytes.withUnsafeBytes { source in
                let rest = UnsafeRawBufferPointer(rebasing: source[used...])
                try withReceiveBuffer(hint: rest.count) { target in
                    count = min(rest.count, target.count)
                    target.copyMemory(from: UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
                    return count
                }
            }
            if count == 0 { throw EmptyReceiveBuffer() }
            used += count
            try received(count: count, on: connection)
            if used < bytes.count, !connection.isReading || connection.handler !== self {
                return connection.giveBack(bytes, used: used)
            }
        }
    }
}

/// When too much is queued to be sent, and when there is room again, in bytes.
public struct WriteLimits: Sendable, Hashable {
    private let highMark: UInt32
    private let lowMark: UInt32
    /// More than this is too much.
    public var high: Int { Int(highMark) }
    /// At most this is room.
    public var low: Int { Int(lowMark) }

    /// - Parameters:
    ///   - high: 64 KiB by default, or four times `low` if that is given; 0: any queued byte is too much. At most 4 GiB.
    ///   - low: A quarter of `high` by default.
    /// - Throws: `.io` with `EINVAL` if either is negative, or `high` is below `low`. Source: asyncio's
    ///   `set_write_buffer_limits`.
    public init(high: Int? = nil, low: Int) throws(LoopError) {
        let high = high ?? low.multipliedReportingOverflow(by: 4).partialValue
        guard 0 <= low, low <= high else {
            throw .io(IOError(errno: EINVAL, operation: "write limits, high \(high) and low \(low)"))
        }
        highMark = UInt32(clamping: high)
        lowMark = UInt32(clamping: low)
    }

    /// A negative `high` is 0.
    public init(high: Int = 64 * 1024) {
        highMark = UInt32(clamping: high)
        lowMark = UInt32(clamping: high / 4)
    }
}
