// SPDX-License-Identifier: Apache-2.0
//
// SocketAddress.swift: an IPv4 or IPv6 address with a port, or the path or name of a Unix socket.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// An IPv4 or IPv6 address with a port, or the path or abstract name of a Unix socket.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    /// The address as text, as in `"127.0.0.1"` or `"::1"`; of a Unix socket its path, or its abstract name behind a
    /// zero byte.
    public let host: String
    /// 0 for a Unix socket.
    public let port: UInt16
    /// Whether it is a Unix socket's.
    public let isUnix: Bool

    /// - Throws: `.invalidAddress` for anything but a literal address: names are not looked up.
    public init(_ host: String, _ port: UInt16) throws(LoopError) {
        var address = lc_address()
        // C reads only as far as a zero byte.
        guard !host.utf8.contains(0), lc_address_parse(host, port, &address) == 0 else { throw .invalidAddress(host) }
        self.host = host
        self.port = port
        isUnix = false
    }

    /// A Unix socket: a path, at most 107 bytes, or an abstract name, which begins with a zero byte and has no file.
    /// - Throws: `.invalidAddress` for an empty or too long name, and for a path with a zero byte in it.
    public init(unix name: String) throws(LoopError) {
        host = name
        port = 0
        isUnix = true
        var address = lc_address()
        if unixAddress(&address) < 0 { throw .invalidAddress(name) }
    }

    /// What `fill` asks of the kernel; `nil` if it cannot tell, or the address has neither port nor name.
    init?(_ fill: (UnsafeMutablePointer<lc_address>) -> Int32) {
        var address = lc_address()
        guard fill(&address) == 0 else { return nil }
        isUnix = address.storage.ss_family == sa_family_t(AF_UNIX)
        if isUnix {
            host = withUnsafePointer(to: address) { address in
                var name: UnsafePointer<CChar>?
                let length = lc_address_unix_name(address, &name)
                return String(decoding: UnsafeRawBufferPointer(start: name, count: Int(length)), as: UTF8.self)
            }
            if host.isEmpty { return nil }
            port = 0
            return
        }
        var port: Int32 = -1
        host = text(capacity: 64) { port = lc_address_format(&address, $0, 64) }
        guard port >= 0 else { return nil }
        self.port = UInt16(port)
    }

    /// Abstract names are shown as `@name`, as by ss(8).
    public var description: String {
        if isUnix { return host.utf8.first == 0 ? "unix:@\(host.dropFirst())" : "unix:\(host)" }
        return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    var core: lc_address {
        var address = lc_address()
        _ = isUnix ? unixAddress(&address) : lc_address_parse(host, port, &address)
        return address
    }

    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    var family: Int32 { Int32(core.storage.ss_family) }

    private func unixAddress(_ address: inout lc_address) -> Int32 { makeUnixAddress(host, &address) }

    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: core) { address in
            UnsafeRawPointer(address).withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, address.pointee.length)
            }
        }
    }
}

/// - Parameter name: A path, or an abstract name behind a zero byte.
/// - Returns: 0, or a negated errno.
func makeUnixAddress(_ name: String, _ address: inout lc_address) -> Int32 {
    var name = name
    return name.withUTF8 { bytes in
        bytes.withMemoryRebound(to: CChar.self) { lc_address_unix($0.baseAddress, $0.count, &address) }
    }
}
