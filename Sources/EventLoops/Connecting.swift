// SPDX-License-Identifier: Apache-2.0
//
// Connecting.swift: connections to one address, or to whichever of several answers first.

import CLoopCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// How to connect.
public struct ConnectOptions: Sendable, Hashable {
    /// This end's address: the first that can be had of the other end's family. Port 0 lets the kernel pick one.
    public var localAddresses: [SocketAddress] = []
    /// How long an attempt has the field to itself before the next address is tried beside it (RFC 8305). `nil`: until
    /// it has failed.
    public var happyEyeballsDelay: Duration? = .milliseconds(250)
    /// How many addresses of the first one's family come before those of the other families, which then take turns.
    /// Of no account without ``happyEyeballsDelay``.
    public var firstFamilyCount = 1
    /// Lets the kernel ask a peer that is silent for long whether it is still there (`SO_KEEPALIVE`).
    public var keepAlive = false
    /// When it asks.
    public var keepAliveTiming = KeepAliveTiming()
    /// Sends small writes at once rather than gather them while an answer is due (`TCP_NODELAY`).
    public var noDelay = true
    public init() {}
}

/// When the kernel asks a silent TCP peer whether it is still there. In whole seconds; 0 is what the system has, as in
/// `/proc/sys/net/ipv4/tcp_keepalive_*`.
public struct KeepAliveTiming: Sendable, Hashable {
    /// The silence before the first question (`TCP_KEEPIDLE`).
    public var idleSeconds: UInt32 = 0
    /// From one question to the next (`TCP_KEEPINTVL`).
    public var intervalSeconds: UInt32 = 0
    /// Questions without an answer, after which the connection breaks with `ETIMEDOUT` (`TCP_KEEPCNT`).
    public var probes: UInt32 = 0
    public init() {}

    var core: lc_keep_alive {
        lc_keep_alive(idle_s: idleSeconds, interval_s: intervalSeconds, probe_count: probes)
    }
}

/// An address that was tried, and what came of it.
public struct ConnectAttempt: Error, Sendable, Hashable, CustomStringConvertible {
    public let address: SocketAddress
    public let error: IOError
    public var description: String { error.description }

    public init(address: SocketAddress, error: IOError) {
        self.address = address
        self.error = error
    }
}

extension Connection {
    /// Connects to a host: a literal IPv4 or IPv6 address, or a name, all of whose addresses are tried as by
    /// ``connect(to:on:options:)-([SocketAddress],_,_)``. Source: asyncio's `create_connection`.
    /// - Throws: The errors of that, and those of ``Loop/resolve(_:port:)``.
    nonisolated(nonsending) public static func connect(
        to host: String, port: UInt16, on loop: any Loop, options: ConnectOptions = ConnectOptions()
    ) async throws(LoopError) -> Connection {
        try loop.core.checkOnLoop("connect")
        if host.isEmpty { throw .invalidAddress(host) }
        return try await connect(to: loop.resolve(host, port: port), on: loop, options: options)
    }

    /// Connects to a Unix socket: a path, or an abstract name, which begins with a zero byte. Source: asyncio's
    /// `create_unix_connection`.
    /// - Throws: `.invalidAddress`, `.cancelled`, `.io` with the errno of `connect` and the name.
    nonisolated(nonsending) public static func connect(
        toUnix name: String, on loop: any Loop, options: ConnectOptions = ConnectOptions()
    ) async throws(LoopError) -> Connection {
        try await connect(to: SocketAddress(unix: name), on: loop, options: options)
    }

    /// Connects to an address, also to that of a Unix socket.
    /// - Throws: `.cancelled`, and then the descriptor is closed; `.io` with the errno of `connect`, `bind` or `socket`
    ///   and the address.
    nonisolated(nonsending) public static func connect(
        to address: SocketAddress, on loop: any Loop, options: ConnectOptions = ConnectOptions()
    ) async throws(LoopError) -> Connection {
        try loop.core.check("connect")
        guard loop.isOnLoop else { throw loop.core.wrongThread("connect") }
        let descriptor = try openSocket(for: address, options)
        var stream: OpaquePointer?
        let result = address.withSockaddr { lc_stream_connect_socket(loop.core.loop, descriptor, $0, $1, &stream) }
        guard result == 0, let stream else {
            closeDescriptor(descriptor)
            throw LoopError(core: result, operation: "connect")
        }
        let connection = Connection(loop.core, stream)
        try await connection.waitToSend(below: .max, operation: "connect")
        let outcome = lc_stream_connect_result(stream)
        if outcome < 0 { throw .io(IOError(errno: outcome, operation: "connect to \(address)")) }
        return connection
    }

    /// Connects to the first of `addresses` that answers.
    ///
    /// The addresses are tried in turn, families alternating, the next one as soon as one has failed or has had the
    /// field to itself for ``ConnectOptions/happyEyeballsDelay``. The first connection wins; the other attempts are
    /// closed. Source: RFC 8305; asyncio's `create_connection` with `happy_eyeballs_delay`.
    /// - Throws: what the only attempt failed with; `.connectFailed` with all attempts if there were several;
    ///   `.invalidAddress` if there is no address; `.cancelled`, and then nothing is left open.
    nonisolated(nonsending) public static func connect(
        to addresses: [SocketAddress], on loop: any Loop, options: ConnectOptions = ConnectOptions()
    ) async throws(LoopError) -> Connection {
        guard let first = addresses.first else { throw .invalidAddress("") }
        if addresses.count == 1 { return try await connect(to: first, on: loop, options: options) }
        try loop.core.check("connect")
        guard let delay = options.happyEyeballsDelay else {
            return try await connectInTurn(to: addresses, on: loop, options)
        }
        let order = interleaved(addresses, firstFamilyCount: options.firstFamilyCount)
        return try await race(to: order, delay: delay, on: loop, options).get()
    }

    nonisolated(nonsending) private static func connectInTurn(
        to addresses: [SocketAddress], on loop: any Loop, _ options: ConnectOptions
    ) async throws(LoopError) -> Connection {
        var attempts: [ConnectAttempt] = []
        for address in addresses {
            do {
                return try await connect(to: address, on: loop, options: options)
            } catch .io(let error) {
                attempts.append(ConnectAttempt(address: address, error: error))
            }
        }
        throw .connectFailed(attempts)
    }

    private enum Event {
        case connected(Connection)
        case failed(Int, LoopError)
        /// So many attempts had been made when the delay began.
        case delayed(Int)
    }

    nonisolated(nonsending) private static func race(
        to addresses: [SocketAddress], delay: Duration, on loop: any Loop, _ options: ConnectOptions
    ) async -> Result<Connection, LoopError> {
        await withTaskGroup(of: Event.self) { group in
            var made = 0
            var failed: [Int: IOError] = [:]
            // On the loop's thread, whatever the caller prefers for child tasks.
            let executor = loop.taskExecutor
            func makeNext() {
                let number = made
                made += 1
                group.addTask(executorPreference: executor) {
                    do throws(LoopError) {
                        return .connected(try await connect(to: addresses[number], on: loop, options: options))
                    } catch {
                        return .failed(number, error)
                    }
                }
                guard made < addresses.count else { return }
                let count = made
                group.addTask(executorPreference: executor) {
                    try? await loop.sleep(for: delay)
                    return .delayed(count)
                }
            }
            var outcome: Result<Connection, LoopError>?
            makeNext()
            while outcome == nil, let event = await group.next() {
                switch event {
                case .connected(let connection): outcome = .success(connection)
                case .failed(let number, .io(let error)):
                    failed[number] = error
                    if made < addresses.count {
                        makeNext()
                    } else if failed.count == made {
                        outcome = .failure(
                            .connectFailed(
                                addresses.enumerated().compactMap { number, address in
                                    failed[number].map { ConnectAttempt(address: address, error: $0) }
                                }))
                    }
                case .failed(_, let error): outcome = .failure(error)
                case .delayed(let count):
                    // Of an attempt that has had a successor already, it is of no account.
                    if count == made, made < addresses.count, !Task.isCancelled { makeNext() }
                }
            }
            group.cancelAll()
            // Who comes second has lost.
            while let event = await group.next() {
                if case .connected(let connection) = event { connection.abort() }
            }
            return outcome ?? .failure(.cancelled(operation: "connect"))
        }
    }

    /// The first family's first addresses, and then one of each family in turn.
    static func interleaved(_ addresses: [SocketAddress], firstFamilyCount: Int) -> [SocketAddress] {
        var families: [[SocketAddress]] = []
        for address in addresses {
            if let family = families.firstIndex(where: { $0[0].family == address.family }) {
                families[family].append(address)
            } else {
                families.append([address])
            }
        }
        guard families.count > 1 else { return addresses }
        let ahead = min(max(firstFamilyCount, 1) - 1, families[0].count)
        var order = Array(families[0].prefix(ahead))
        families[0].removeFirst(ahead)
        for turn in 0..<(families.map(\.count).max() ?? 0) {
            for family in families where turn < family.count { order.append(family[turn]) }
        }
        return order
    }

    private static func openSocket(
        for address: SocketAddress, _ options: ConnectOptions
    ) throws(LoopError) -> Int32 {
        var descriptor: Int32 = -1
        var result = lc_socket_open(address.family, !options.noDelay, &descriptor)
        if result < 0 { throw .io(IOError(errno: result, operation: "open a socket for \(address)")) }
        do throws(LoopError) {
            if options.keepAlive {
                result = withUnsafePointer(to: options.keepAliveTiming.core) { lc_socket_keep_alive(descriptor, $0) }
                if result < 0 { throw LoopError.io(IOError(errno: result, operation: "keep-alive to \(address)")) }
            }
            try bind(descriptor, for: address, options.localAddresses)
        } catch {
            closeDescriptor(descriptor)
            throw error
        }
        return descriptor
    }

    private static func bind(
        _ descriptor: Int32, for address: SocketAddress, _ localAddresses: [SocketAddress]
    ) throws(LoopError) {
        if localAddresses.isEmpty { return }
        var failure = IOError(errno: EADDRNOTAVAIL, operation: "find a local address for \(address)")
        for local in localAddresses where local.family == address.family {
            let result = withUnsafePointer(to: local.core) { lc_socket_bind_local(descriptor, $0) }
            if result == 0 { return }
            failure = IOError(errno: result, operation: "bind to \(local)")
        }
        throw .io(failure)
    }
}
