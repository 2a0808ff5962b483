// SPDX-License-Identifier: Apache-2.0
//
// Resolver.swift: looking names up: what a loop offers, and where another way to do it plugs in.

import CLoopCore

/// Looks names up for a loop. Set yours as ``Loop/resolver``.
///
/// Called on the thread of the loop it is given, as a task of its own, so it may use that loop: for a call that blocks
/// there is ``Loop/offload(on:_:)``, for a protocol of its own there are the loop's sockets. It may serve several loops
/// at once. When whoever asked is cancelled, so is this task, and nobody waits for it any more: what it still returns
/// is dropped. Literal addresses are not asked for, and need not be understood.
///
///     struct Fixed: Resolver {
///         func resolve(host: String, port: UInt16, on loop: any Loop) async throws -> [SocketAddress] {
///             [try SocketAddress("127.0.0.1", port)]
///         }
///     }
public protocol Resolver: Sendable {
    /// The addresses of `host`, each with `port`, best first.
    /// - Throws: ``LoopError`` reaches the caller as it is; anything else as `.resolving`, with its text.
    nonisolated(nonsending) func resolve(
        host: String, port: UInt16, on loop: any Loop
    ) async throws -> [SocketAddress]

    /// The names of an address and its port. The default asks the system.
    nonisolated(nonsending) func names(of address: SocketAddress, on loop: any Loop) async throws -> HostNames

    /// The port of a service, as of `"https"`. The default asks the system.
    nonisolated(nonsending) func port(ofService service: String, on loop: any Loop) async throws -> UInt16
}

extension Resolver {
    nonisolated(nonsending) public func port(ofService service: String, on loop: any Loop) async throws -> UInt16 {
        try await SystemResolver.lookUp(service: service, on: loop)
    }

    nonisolated(nonsending) public func names(of address: SocketAddress, on loop: any Loop) async throws -> HostNames {
        try await SystemResolver.lookUp(address, on: loop)
    }
}

/// The name of a host, and of a service on it.
public struct HostNames: Sendable, Hashable {
    /// The address as text, if the host has no name.
    public var host: String
    /// The port's number, if the service has no name.
    public var service: String

    public init(host: String, service: String) {
        self.host = host
        self.service = service
    }
}

extension Loop {
    /// The addresses of `host`, each with `port`: at least one, none twice, best first.
    ///
    /// A literal IPv4 or IPv6 address is returned as it is, without a wait, a thread or the ``resolver``. Anything else
    /// goes there; with ``SystemResolver`` that is the system's own way, `/etc/hosts` and all, on a worker. An IPv6
    /// address with a zone, as in `"fe80::1%eth0"`, comes back with the number of the zone. Cancelling ends the wait at
    /// once.
    ///
    /// On the loop's thread. Nothing is cached here. Source: asyncio's `getaddrinfo`.
    /// - Throws: `.resolving` with the reason and advice; `.cancelled`, `.closed`, `.wrongThread`, `.forked`; as
    ///   ``offload(on:_:)`` for want of workers.
    nonisolated(nonsending) public func resolve(
        _ host: String, port: UInt16
    ) async throws(LoopError) -> [SocketAddress] {
        try core.checkOnLoop("resolve")
        if let literal = try? SocketAddress(host, port) { return [literal] }
        let resolver = resolver
        let found = try await ask("resolve", host) { loop in
            try await resolver.resolve(host: host, port: port, on: loop)
        }
        if found.isEmpty { throw .resolving(ResolvingError(host: host, reason: "the resolver found no address")) }
        var known: Set<SocketAddress> = []
        return found.filter { known.insert($0).inserted }
    }

    /// The same at the port of a service: its name, as in `"https"`, which goes to the ``resolver`` too, or the port's
    /// number as text.
    nonisolated(nonsending) public func resolve(
        _ host: String, service: String
    ) async throws(LoopError) -> [SocketAddress] {
        try core.checkOnLoop("resolve")
        let isNumber = service.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        if isNumber, let port = UInt16(service) { return try await resolve(host, port: port) }
        let resolver = resolver
        let port = try await ask("resolve", service) { loop in
            try await resolver.port(ofService: service, on: loop)
        }
        return try await resolve(host, port: port)
    }

    /// The name of the host that has this address, and of the service at its port. As ``resolve(_:port:)``, but always
    /// asks. Source: asyncio's `getnameinfo`.
    nonisolated(nonsending) public func names(of address: SocketAddress) async throws(LoopError) -> HostNames {
        try core.checkOnLoop("names")
        let resolver = resolver
        return try await ask("names", address.host) { loop in try await resolver.names(of: address, on: loop) }
    }

    /// Has `question` answered by a task of its own, which a cancel does not wait for.
    nonisolated(nonsending) private func ask<Value: Sendable>(
        _ operation: String, _ host: String, _ question: @escaping @Sendable (any Loop) async throws -> Value
    ) async throws(LoopError) -> Value {
        if Task.isCancelled { throw .cancelled(operation: operation) }
        let began = core.debug.isOn ? lc_now_ns() : 0
        defer { if began != 0 { core.reportIfSlow("lookup of \"\(host)\"", since: began, keptLoop: false) } }
        let answer = Answer<Value>(core)
        let result = await answer.waitToReceive { answer.start($0, on: self, question) }
        try answer.check(result, operation)
        do { return try answer.value!.get() } catch let error as LoopError { throw error } catch {
            throw .resolving(ResolvingError(host: host, reason: "\(error)"))
        }
    }
}

/// The wait for a task that answers a question. On the loop's thread, until that is closed.
private final class Answer<Value: Sendable>: ThreadWait, @unchecked Sendable {
    private(set) var value: Result<Value, any Error>?
    private var task: Task<Void, any Error>?

    func start(
        _ word: UInt64, on loop: any Loop, _ question: @escaping @Sendable (any Loop) async throws -> Value
    ) -> Int32 {
        let result = begin(word)
        guard result == 0 else { return result }
        task = loop.spawn {
            do { self.value = .success(try await question(loop)) } catch { self.value = .failure(error) }
            self.arrive()
        }
        return 0
    }

    override func ended(_ ending: Ending) -> Bool {
        if ending != .arrived { task?.cancel() }
        task = nil
        return false
    }
}
