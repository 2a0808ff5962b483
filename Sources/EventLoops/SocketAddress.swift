// SPDX-License-Identifier: Apache-2.0
//
// SocketAddress.swift: an IPv4 or IPv6 address with a port.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// An IPv4 or IPv6 address with a port.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    /// The address as text, as in `"127.0.0.1"` or `"::1"`.
    public let host: String
    public let port: UInt16

    /// - Throws: `.invalidAddress` for anything but a literal address: names are not looked up.
    public init(_ host: String, _ port: UInt16) throws(LoopError) {
        var address = lc_address()
        // C reads only as far as a zero byte.
        guard !host.utf8.contains(0), lc_address_parse(host, port, &address) == 0 else { throw .invalidAddress(host) }
        self.host = host
        self.port = port
    }

    /// What `fill` asks of the kernel; `nil` if it cannot tell, or the family has no port.
    init?(_ fill: (UnsafeMutablePointer<lc_address>) -> Int32) {
        var address = lc_address()
        guard fill(&address) == 0 else { return nil }
        var port: Int32 = -1
        host = text(capacity: 64) { port = lc_address_format(&address, $0, 64) }
        guard port >= 0 else { return nil }
        self.port = UInt16(port)
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    var core: lc_address {
        var address = lc_address()
        _ = lc_address_parse(host, port, &address)
        return address
    }

    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: core) { address in
            UnsafeRawPointer(address).withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, address.pointee.length)
            }
        }
    }
}
