// SPDX-License-Identifier: Apache-2.0
//
// DatagramMulticast.swift: groups of receivers.

import CLoopCore

/// The interface that a group is joined at, or that datagrams to groups leave by.
public enum MulticastInterface: Sendable, Hashable {
    /// The one the system's routes choose.
    case systemDefault
    /// By its number, as `if_nametoindex(3)` tells it.
    case index(UInt32)
    /// By one of its addresses. IPv4 alone.
    case address(SocketAddress)

    fileprivate func withCore<Result>(_ body: (UnsafePointer<lc_address>?, UInt32) -> Result) -> Result {
        switch self {
        case .systemDefault: body(nil, 0)
        case .index(let number): body(nil, number)
        case .address(let address): withUnsafePointer(to: address.core) { body($0, 0) }
        }
    }
}

extension DatagramSocket {
    /// Receives what is sent to `group`, whose port does not matter, by way of `interface`. Bind the socket to the port
    /// that is sent to, at the group's address or at any.
    /// - Throws: `.io` with the errno: `EINVAL` if it is no group, `ENODEV` if there is no such interface, `EADDRINUSE` if
    ///   it is joined already.
    public func join(group: SocketAddress, interface: MulticastInterface = .systemDefault) throws(LoopError) {
        try change("join \(group.host)") { descriptor in
            withUnsafePointer(to: group.core) { group in
                interface.withCore { lc_datagram_membership(descriptor, true, group, $0, $1) }
            }
        }
    }

    /// Ends what ``join(group:interface:)`` began. The close of the socket does it as well.
    public func leave(group: SocketAddress, interface: MulticastInterface = .systemDefault) throws(LoopError) {
        try change("leave \(group.host)") { descriptor in
            withUnsafePointer(to: group.core) { group in
                interface.withCore { lc_datagram_membership(descriptor, false, group, $0, $1) }
            }
        }
    }

    /// Sets the interface that datagrams to groups leave by.
    public func setMulticastInterface(_ interface: MulticastInterface) throws(LoopError) {
        try change("set the interface for groups") { descriptor in
            interface.withCore { lc_datagram_multicast_interface(descriptor, $0, $1) }
        }
    }

    /// Sets whether sockets of this machine receive what this one sends to groups. They do by default.
    public func setMulticastLoop(_ isOn: Bool) throws(LoopError) {
        try change("set loop-back of groups") { lc_datagram_set_multicast($0, LC_MULTICAST_LOOP, isOn ? 1 : 0) }
    }

    /// Sets how many hops datagrams to groups go. 1, the default, is this network alone.
    public func setMulticastTTL(_ hops: UInt8) throws(LoopError) {
        try change("set the hops for groups") { lc_datagram_set_multicast($0, LC_MULTICAST_TTL, Int32(hops)) }
    }
}
