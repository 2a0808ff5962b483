// SPDX-License-Identifier: Apache-2.0
//
// DatagramOpening.swift: how datagram sockets are made.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Sizes and switches of a datagram socket.
public struct DatagramOptions: Sendable, Hashable {
    /// Lets several sockets share an address; the kernel spreads datagrams over them (`SO_REUSEPORT`).
    public var reusePort = false
    /// Allows sending to broadcast addresses. A socket with a remote address is then not connected to it: it sends
    /// there, and receives from everybody.
    public var broadcast = false
    /// Bytes the kernel keeps until they are received; 0: its default. Linux doubles it, and has an upper limit.
    public var receiveBufferSize: Int32 = 0
    /// Bytes the kernel keeps until they are sent; 0: its default.
    public var sendBufferSize: Int32 = 0
    /// Bytes kept of one datagram. What is longer is cut off, and that is told.
    public var maximumDatagramSize: UInt32 = 65536
    /// Datagrams received with one system call, at most 1024. The socket has memory for so many, of which pages that are
    /// never written cost nothing.
    public var receiveBatch: UInt32 = 32
    public init() {}
}

extension Loop {
    /// A datagram socket bound to `address`. Port 0 lets the kernel pick one.
    ///
    /// The file that a Unix socket left behind is replaced; that of one in use is not. The file is removed when the
    /// socket is closed, unless it is another one by then.
    ///
    /// On the loop's thread, or before the loop runs. Source: asyncio's `create_datagram_endpoint`.
    /// - Throws: `.closed`, `.forked`, `.wrongThread`; `.io` with the errno of what failed, and the address.
    public func bindDatagram(
        to address: DatagramAddress, options: DatagramOptions = DatagramOptions()
    ) throws(LoopError) -> DatagramSocket {
        try DatagramSocket(on: self, local: address, remote: nil, options)
    }

    /// A datagram socket that sends to `address` and receives from there alone.
    /// - Parameters:
    ///   - local: This end's address; `nil` lets the kernel pick one. A Unix socket without one gets no answers.
    ///   - options: With ``DatagramOptions/broadcast``, it receives from everybody.
    /// - Throws: As ``bindDatagram(to:options:)``; of a Unix socket that is not there, `ENOENT` or
    ///   `ECONNREFUSED`. `EAFNOSUPPORT` if the addresses are of different families.
    public func connectDatagram(
        to address: DatagramAddress, from local: DatagramAddress? = nil, options: DatagramOptions = DatagramOptions()
    ) throws(LoopError) -> DatagramSocket {
        try DatagramSocket(on: self, local: local, remote: address, options)
    }

    /// A datagram socket at the first of several pairs of addresses that can be had: each local address with each remote
    /// one of its family, in order.
    /// - Parameters:
    ///   - locals: Empty: the kernel picks one.
    ///   - remotes: Empty: the socket is bound, and connected to nothing.
    /// - Throws: The error of the first pair, if none can be had. `.io` with `EAFNOSUPPORT` if there is no pair.
    public func openDatagram(
        locals: [DatagramAddress], remotes: [DatagramAddress], options: DatagramOptions = DatagramOptions()
    ) throws(LoopError) -> DatagramSocket {
        var first: LoopError?
        for local in locals.isEmpty ? [nil] : locals.map(Optional.some) {
            for remote in remotes.isEmpty ? [nil] : remotes.map(Optional.some) {
                if let local, let remote, local.family != remote.family { continue }
                if local == nil && remote == nil { continue }
                do {
                    return try DatagramSocket(on: self, local: local, remote: remote, options)
                } catch {
                    if first == nil { first = error }
                }
            }
        }
        throw first ?? .io(IOError(errno: EAFNOSUPPORT, operation: "open a datagram socket"))
    }
}

extension DatagramSocket {
    convenience init(
        on loop: any Loop, local: DatagramAddress?, remote: DatagramAddress?, _ options: DatagramOptions
    ) throws(LoopError) {
        try loop.core.check("open a datagram socket")
        let operation = Self.operation(local, remote)
        if let local, let remote, local.family != remote.family {
            throw .io(IOError(errno: EAFNOSUPPORT, operation: operation))
        }
        let setup = lc_datagram_setup(
            reuse_port: options.reusePort, broadcast: options.broadcast, connect: !options.broadcast,
            receive_buffer: options.receiveBufferSize, send_buffer: options.sendBufferSize)
        var descriptor: Int32 = -1
        let result = withCore(local) { local in
            withCore(remote) { remote in
                withUnsafePointer(to: setup) { lc_datagram_open(local, remote, $0, &descriptor) }
            }
        }
        if result < 0 { throw .io(IOError(errno: result, operation: operation)) }
        do {
            try self.init(
                adopting: descriptor, on: loop, options: options, remote: remote, isConnected: !options.broadcast)
        } catch {
            withCore(local) { lc_datagram_discard(descriptor, $0) }
            throw error
        }
        if local != nil { keepPath() }
    }

    private static func operation(_ local: DatagramAddress?, _ remote: DatagramAddress?) -> String {
        switch (local, remote) {
        case (let local?, let remote?): "connect a datagram socket at \(local) to \(remote)"
        case (nil, let remote?): "connect a datagram socket to \(remote)"
        case (let local?, nil): "bind a datagram socket to \(local)"
        case (nil, nil): "open a datagram socket"
        }
    }
}

func withCore<Result>(_ address: DatagramAddress?, _ body: (UnsafePointer<lc_address>?) -> Result) -> Result {
    guard let address else { return body(nil) }
    return withUnsafePointer(to: address.core) { body($0) }
}
