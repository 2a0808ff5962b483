// SPDX-License-Identifier: Apache-2.0
//
// BoundSocket.swift: a socket that has its address and does not listen yet.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A stream socket that is bound. It refuses connections until it listens, and is closed if it never does.
struct BoundSocket: ~Copyable {
    let core: LoopCore
    /// The port is the real one if 0 was asked for.
    let address: SocketAddress
    private var descriptor: Int32
    var rawDescriptor: Int32 { descriptor }
    private let backlog: Int32
    /// Of a Unix socket with a path.
    private(set) var file: SocketFile?

    init(on loop: any Loop, _ wanted: SocketAddress, _ options: ListenOptions) throws(LoopError) {
        try loop.core.check("listen")
        if loop.isClosed { throw .closed }
        var descriptor: Int32 = -1
        let listening = lc_listen_options(
            reuse_port: options.reusePort, keep_alive: options.keepAlive, timing: options.keepAliveTiming.core,
            delay: !options.noDelay, both_families: !options.v6Only)
        let result = withUnsafePointer(to: wanted.core) { address in
            withUnsafePointer(to: listening) { lc_socket_bind(address, $0, &descriptor) }
        }
        guard result == 0 else { throw .io(IOError(errno: result, operation: "listen on \(wanted)")) }
        core = loop.core
        self.descriptor = descriptor
        backlog = options.backlog
        address = SocketAddress { lc_address_local(descriptor, $0) } ?? wanted
        if wanted.isUnix, options.removesPath { file = SocketFile(wanted) }
    }

    deinit {
        guard descriptor >= 0 else { return }
        closeDescriptor(descriptor)
        file?.remove()
    }

    /// Listens, and hands the socket to the loop.
    mutating func listen() throws(LoopError) -> OpaquePointer {
        var listener: OpaquePointer?
        var result = lc_socket_start_listening(descriptor, backlog)
        if result == 0 { result = lc_listener_adopt(core.loop, descriptor, &listener) }
        guard result == 0, let listener else { throw LoopError(core: result, operation: "listen on \(address)") }
        descriptor = -1
        return listener
    }
}

/// The file of a Unix socket that listens, as it was when it was made.
struct SocketFile {
    private var file = lc_socket_file()

    init(_ address: SocketAddress) {
        withUnsafePointer(to: address.core) { lc_socket_file_note(&file, $0) }
    }

    /// Removes it, unless another one has taken its place, or it is that of the process this one was forked from.
    func remove() {
        var file = file
        lc_socket_file_remove(&file)
    }
}
