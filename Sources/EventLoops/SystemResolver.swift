// SPDX-License-Identifier: Apache-2.0
//
// SystemResolver.swift: looking names up as the C library does, on a worker, and what can go wrong there.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Asks the C library, which knows `/etc/hosts`, `/etc/resolv.conf` and whatever else is set up here. It blocks, so
/// each lookup takes a worker of the loop's for as long as it lasts.
public struct SystemResolver: Resolver {
    public init() {}

    nonisolated(nonsending) public func resolve(
        host: String, port: UInt16, on loop: any Loop
    ) async throws -> [SocketAddress] {
        try await loop.offload { try Self.lookUp(host, port) }
    }

    nonisolated(nonsending) static func lookUp(
        _ address: SocketAddress, on loop: any Loop
    ) async throws -> HostNames {
        try await loop.offload { try lookUp(address) }
    }

    nonisolated(nonsending) static func lookUp(service: String, on loop: any Loop) async throws -> UInt16 {
        try await loop.offload { try lookUp(service: service) }
    }

    /// No name is longer (NI_MAXHOST).
    private static let nameBytesMax = 1025

    private static func lookUp(_ host: String, _ port: UInt16) throws(LoopError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = streamType
        hints.ai_flags = AI_NUMERICSERV
        // C reads only as far as a zero byte.
        let code = host.utf8.contains(0) ? EAI_NONAME : 0
        return try addresses(host, "\(port)", hints, code, of: host)
    }

    /// Of TCP, if it is a service of several protocols.
    private static func lookUp(service: String) throws(LoopError) -> UInt16 {
        var hints = addrinfo()
        hints.ai_family = AF_INET
        // Without a letter it is none (RFC 6335), but the system takes " 80" and even 65536 for numbers.
        let isName = service.unicodeScalars.contains { ("a"..."z").contains($0) || ("A"..."Z").contains($0) }
        let code = isName && !service.utf8.contains(0) ? 0 : EAI_SERVICE
        return try addresses(nil, service, hints, code, of: service)[0].port
    }

    /// - Parameter refusal: What is known to be wrong without asking, else 0.
    private static func addresses(
        _ host: String?, _ service: String, _ hints: addrinfo, _ refusal: Int32, of name: String
    ) throws(LoopError) -> [SocketAddress] {
        var hints = hints
        var list: UnsafeMutablePointer<addrinfo>?
        let code = refusal != 0 ? refusal : getaddrinfo(host, service, &hints, &list)
        guard code == 0 else { throw .resolving(ResolvingError(host: name, code: code, errno: errno)) }
        defer { freeaddrinfo(list) }
        return sequence(first: list, next: { $0?.pointee.ai_next }).compactMap { entry in
            guard let entry, let name = entry.pointee.ai_addr else { return nil }
            let length = min(Int(entry.pointee.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
            return SocketAddress { address in
                memcpy(&address.pointee.storage, name, length)
                address.pointee.length = socklen_t(length)
                return 0
            }
        }
    }

    private static func lookUp(_ address: SocketAddress) throws(LoopError) -> HostNames {
        var code: Int32 = 0
        var service = ""
        let host = text(capacity: nameBytesMax) { host in
            service = text(capacity: 256) { service in
                code = address.withSockaddr {
                    getnameinfo($0, $1, host, socklen_t(nameBytesMax), service, 256, 0)
                }
            }
        }
        guard code == 0 else { throw .resolving(ResolvingError(host: address.host, code: code, errno: errno)) }
        return HostNames(host: host, service: service)
    }
}

#if canImport(Glibc)
private let streamType = Int32(SOCK_STREAM.rawValue)
#else
private let streamType = SOCK_STREAM
#endif

/// A lookup that failed: what was looked up, and why.
public struct ResolvingError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The name or address, or the service.
    public let host: String
    /// The C library's code, as in `EAI_NONAME`; 0 for what only another resolver knows.
    public let code: Int32
    public let reason: String

    /// For a code of getaddrinfo(3). `errno` matters for `EAI_SYSTEM` alone.
    public init(host: String, code: Int32, errno: Int32 = 0) {
        self.host = host
        self.code = code
        reason = code == EAI_SYSTEM ? String(cString: strerror(errno)) : String(cString: gai_strerror(code))
    }

    /// For a resolver's own reasons.
    public init(host: String, reason: String) {
        self.host = host
        code = 0
        self.reason = reason
    }

    public var description: String { "look up \"\(host)\": \(reason). \(advice)" }

    private var advice: String {
        switch code {
        case 0: "Check the name, and the resolver that was set."
        case EAI_AGAIN: "Try again later; check the network and the name servers in /etc/resolv.conf."
        case EAI_SERVICE: "Check the spelling, or give the number of the port; /etc/services does not know it."
        case EAI_NONAME: "Check the spelling; neither /etc/hosts nor a name server knows it."
        case EAI_FAIL: "Ask another name server; this one refused or broke the protocol."
        case EAI_MEMORY: "Free memory, and try again."
        case EAI_SYSTEM: "Look for a limit that was reached, as of descriptors."
        default: "See getaddrinfo(3)."
        }
    }
}
