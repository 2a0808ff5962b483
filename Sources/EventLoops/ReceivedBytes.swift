// SPDX-License-Identifier: Apache-2.0
//
// ReceivedBytes.swift: a lease on bytes the kernel wrote.

import CLoopCore

/// Bytes that were received, lent from the loop's buffers: no copy was made. The buffer goes back when the value goes
/// out of scope, on whatever thread that is.
///
/// Do not keep leases for long: a loop has some dozens of buffers. When few are left, further bytes are copied out
/// rather than leave other connections waiting.
public struct ReceivedBytes: ~Copyable, @unchecked Sendable {
    private let buffer: UnsafeMutablePointer<lc_buffer>

    init(_ buffer: UnsafeMutablePointer<lc_buffer>) { self.buffer = buffer }

    deinit { lc_buffer_return(buffer) }

    /// How many bytes there are; at least one.
    public var count: Int { Int(lc_buffer_length(buffer)) }

    /// The bytes, without a copy.
    public var bytes: RawSpan {
        @_lifetime(borrow self)
        borrowing get {
            let span = RawSpan(_unsafeStart: lc_buffer_bytes(buffer), byteCount: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// Calls `body` with the bytes, which are valid until it returns.
    public borrowing func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: lc_buffer_bytes(buffer), count: count))
    }

    /// A copy of the bytes.
    public borrowing func copy() -> [UInt8] { withUnsafeBytes { Array($0) } }

    /// Hands the lease to the core.
    consuming func release() -> UnsafeMutablePointer<lc_buffer> {
        let buffer = buffer
        discard self
        return buffer
    }
}
