// SPDX-License-Identifier: Apache-2.0
//
// SendingFiles.swift: a file's bytes to a connection, from kernel to kernel where it can be done.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Bytes per call of sendfile(2), which is made once per pass: other connections have their turn between two.
private let sentPerPass = 256 * 1024
private let readPerPass = 64 * 1024

extension Connection {
    /// Sends `count` bytes of an ordinary file from `offset` on, or all there are, and waits until the kernel has accepted
    /// them.
    ///
    /// What was written before is sent first. Until it returns other writes throw `.busy`, `finishWriting()` takes
    /// effect behind the file, and `close()` cuts it short. The bytes do not come by this process, unless the kernel
    /// cannot read the file that way. Either way the loop waits where the disk is slow. The file's position is behind
    /// the last byte sent in the end, also after an error. Source: asyncio's `loop.sendfile`.
    /// - Parameter fallback: Whether to read the file and write it where the kernel refuses sendfile(2).
    /// - Returns: How many bytes were sent: fewer than `count` where the file ends before.
    /// - Throws: `.connectionClosed`, `.finishedWriting`; `.busy` while another file is sent or a write waits;
    ///   `.cancelled`; `.io`, with `EINVAL` for what is no ordinary file, `EPIPE` or `ECONNRESET` where the peer is gone.
    @discardableResult
    nonisolated(nonsending) public func sendFile(
        _ file: Int32, offset: Int = 0, count: Int? = nil, fallback: Bool = true
    ) async throws(LoopError) -> Int {
        try await sendFile(file, from: offset, count, fallback ? .fallback : .native)
    }

    enum FileRoad {
        case native
        case fallback
        /// For tests.
        case fallbackAlone
    }

    nonisolated(nonsending) func sendFile(
        _ file: Int32, from offset: Int, _ count: Int?, _ road: FileRoad
    ) async throws(LoopError) -> Int {
        try checkOnLoop("sendFile")
        let end = try checkedEnd(file, offset, count)
        let refusal = lc_stream_hold(stream)
        if refusal == -EPIPE, lc_stream_send_error(stream) == 0 { throw .finishedWriting }
        if refusal < 0 { throw LoopError(core: refusal, operation: "sendFile") }
        var position = offset
        defer {
            if !lc_loop_is_closed(core.loop) { lc_stream_let_go(stream) }
            lseek(file, off_t(position), SEEK_SET)
        }
        if unsentByteCount > 0 { try await waitToSend(below: 0, operation: "sendFile") }
        if isClosing { throw .connectionClosed(operation: "sendFile") }
        let native = road == .fallbackAlone ? false : try await sendNatively(file, &position, offset, end, road)
        if !native { try await sendByReading(file, &position, end) }
        return position - offset
    }

    /// Where to end.
    private func checkedEnd(_ file: Int32, _ offset: Int, _ count: Int?) throws(LoopError) -> Int {
        guard offset >= 0, count ?? 0 >= 0 else {
            throw .io(IOError(errno: EINVAL, operation: "sendFile with a negative offset or count"))
        }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw .io(IOError(errno: errno, operation: "sendFile")) }
        guard status.st_mode & 0o170000 == 0o100000 else {
            throw .io(IOError(errno: EINVAL, operation: "sendFile of what is no ordinary file"))
        }
        let (end, overflow) = offset.addingReportingOverflow(count ?? .max)
        return overflow ? .max : end
    }

    /// - Returns: False if the kernel has refused before the first byte.
    nonisolated(nonsending) private func sendNatively(
        _ file: Int32, _ position: inout Int, _ start: Int, _ end: Int, _ road: FileRoad
    ) async throws(LoopError) -> Bool {
        while position < end {
            var next = Int64(position)
            let sent = lc_send_file(lc_stream_fd(stream), file, &next, min(end - position, sentPerPass))
            switch Int32(sent) {
            case 0: return true
            case 1...: position += sent
            case -EAGAIN, -EINTR: break
            case -EINVAL, -ENOSYS, -EOPNOTSUPP, -EOVERFLOW, -ENOTSOCK:
                if position == start, road == .fallback { return false }
                throw LoopError.io(IOError(errno: Int32(sent), operation: "sendFile"))
            case -EIO, -EBADF, -ENOMEM, -EFAULT, -EACCES:
                // The file's fault: the connection is whole.
                throw LoopError.io(IOError(errno: Int32(sent), operation: "sendFile"))
            default:
                lc_stream_break(stream, Int32(sent))
                throw LoopError.io(IOError(errno: Int32(sent), operation: "sendFile"))
            }
            if position < end { try await waitForKernelRoom() }
        }
        return true
    }

    nonisolated(nonsending) private func waitForKernelRoom() async throws(LoopError) {
        lc_stream_prepare_send(stream)
        let waited = await waitToSend { lc_stream_wait_room(stream, $0) }
        if waited < 0 { throw LoopError(core: waited, operation: "sendFile") }
        if lc_stream_take_send_cancelled(stream) { throw .cancelled(operation: "sendFile") }
        if lc_loop_is_closed(core.loop) || isClosing { throw closedWhileSending() }
    }

    /// An error that broke the connection says more than that it is closed.
    private func closedWhileSending() -> LoopError {
        let error = lc_loop_is_closed(core.loop) ? 0 : lc_stream_send_error(stream)
        return error == 0 ? .connectionClosed(operation: "sendFile") : LoopError(core: error, operation: "sendFile")
    }

    nonisolated(nonsending) private func sendByReading(
        _ file: Int32, _ position: inout Int, _ end: Int
    ) async throws(LoopError) {
        while position < end {
            let wanted = min(end - position, readPerPass)
            var failure: Int32 = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, count in
                let got = pread(file, buffer.baseAddress, wanted, off_t(position))
                if got < 0 { failure = errno }
                count = max(got, 0)
            }
            if failure == EINTR { continue }
            if failure != 0 { throw .io(IOError(errno: failure, operation: "sendFile: read")) }
            if bytes.isEmpty { return }
            try checkSent(bytes.withUnsafeBytes { lc_stream_send_held(stream, $0.baseAddress, $0.count) })
            position += bytes.count
            try await waitToSend(below: 0, operation: "sendFile")
            if isClosing { throw closedWhileSending() }
        }
    }
}
