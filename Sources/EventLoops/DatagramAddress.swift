// SPDX-License-Identifier: Apache-2.0
//
// DatagramAddress.swift: where a datagram comes from or goes to, as the kernel has it: no text is made or read.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Where a datagram comes from or goes to: an IP address with a port, or a Unix socket's path or name.
///
/// Kept as the kernel has it, so that receiving one and sending to it allocates nothing.
public struct DatagramAddress: @unchecked Sendable, Hashable, CustomStringConvertible {
    var core: lc_address

    init(core: lc_address) { self.core = core }

    /// An IPv4 or IPv6 address.
    public init(_ address: SocketAddress) { core = address.core }

    /// - Throws: `.invalidAddress` for anything but a literal address: names are not looked up.
    public init(_ host: String, _ port: UInt16) throws(LoopError) { self.init(try SocketAddress(host, port)) }

    /// The file of a Unix socket.
    /// - Throws: `.io` with `ENAMETOOLONG` for more than 107 bytes, with `EINVAL` for none or for a zero byte among them.
    public init(unixPath path: String) throws(LoopError) {
        // A zero byte at the beginning would make it an abstract name.
        core = try Self.local(path.utf8.first == 0 ? "" : path, "use Unix path \(path)")
    }

    /// A name of a Unix socket that no file stands for, and that is gone with the socket. Linux alone has them.
    public init(abstractName name: String) throws(LoopError) {
        core = try Self.local("\0" + name, "use abstract name \(name)")
    }

    private static func local(_ name: String, _ operation: String) throws(LoopError) -> lc_address {
        var address = lc_address()
        let result = makeUnixAddress(name, &address)
        if result < 0 { throw .io(IOError(errno: result, operation: operation)) }
        return address
    }

    /// This end's address of a socket; `nil` if the kernel cannot tell.
    init?(localTo descriptor: Int32) {
        core = lc_address()
        guard lc_address_local(descriptor, &core) == 0 else { return nil }
    }

    /// The other end's address.
    init?(remoteTo descriptor: Int32) {
        core = lc_address()
        guard lc_address_peer(descriptor, &core) == 0 else { return nil }
    }

    var family: sa_family_t { core.length < 2 ? sa_family_t(AF_UNIX) : core.storage.ss_family }

    /// The IP address and port; `nil` for a Unix socket.
    public var socketAddress: SocketAddress? {
        family == sa_family_t(AF_UNIX)
            ? nil
            : SocketAddress {
                $0.pointee = core
                return 0
            }
    }

    /// The file of a Unix socket; `nil` for others, and for one without a file.
    public var unixPath: String? {
        withLocalBytes { $0.isEmpty || $0[0] == 0 ? nil : String(decoding: $0, as: UTF8.self) }
    }

    /// The name of a Unix socket that has a name and no file.
    public var abstractName: String? {
        withLocalBytes { $0.isEmpty || $0[0] != 0 ? nil : String(decoding: $0.dropFirst(), as: UTF8.self) }
    }

    /// Whether it is that of a Unix socket that was not bound: nobody can answer it.
    public var isUnnamed: Bool { withLocalBytes { $0.isEmpty ? true : nil } ?? false }

    private func withLocalBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result?) -> Result? {
        withUnsafePointer(to: core) { address in
            var bytes: UnsafePointer<CChar>?
            let count = lc_address_unix_name(address, &bytes)
            return count < 0 ? nil : body(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
        }
    }

    public var description: String {
        if let socketAddress { return socketAddress.description }
        if let unixPath { return "unix:\(unixPath)" }
        if let abstractName { return "unix:@\(abstractName)" }
        return "unix:"
    }

    private func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: core.storage) { body(UnsafeRawBufferPointer(rebasing: $0.prefix(Int(core.length)))) }
    }

    public static func == (left: Self, right: Self) -> Bool {
        left.core.length == right.core.length
            && left.withBytes { left in
                right.withBytes { right in
                    left.isEmpty || memcmp(left.baseAddress!, right.baseAddress!, left.count) == 0
                }
            }
    }

    public func hash(into hasher: inout Hasher) { withBytes { hasher.combine(bytes: $0) } }
}
