// SPDX-License-Identifier: Apache-2.0
//
// ResolverTests.swift: names looked up, by the system and by others. No test asks a name server.

import CLoopCore
import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

private struct Mishap: Error, CustomStringConvertible {
    var description: String { "the moon is full" }
}

/// Answers with whatever `answer` does.
private struct Scripted: Resolver {
    let answer: @Sendable (String, UInt16, any Loop) async throws -> [SocketAddress]
    func resolve(host: String, port: UInt16, on loop: any Loop) async throws -> [SocketAddress] {
        try await answer(host, port, loop)
    }
}

/// Knows one name for everything.
private struct OneName: Resolver {
    func resolve(host: String, port: UInt16, on loop: any Loop) async throws -> [SocketAddress] { [] }
    func names(of address: SocketAddress, on loop: any Loop) async throws -> HostNames {
        HostNames(host: "host of \(address)", service: "service")
    }
    func port(ofService service: String, on loop: any Loop) async throws -> UInt16 { UInt16(service.utf8.count) }
}

private let knowsServices = access("/etc/services", R_OK) == 0

extension LoopError? {
    fileprivate var resolving: ResolvingError? {
        if case .resolving(let error) = self { error } else { nil }
    }
}

@Suite(.timeLimit(.minutes(2)))
struct ResolverTests {
    @Test(
        "X6 a literal address never leaves the loop",
        arguments: LoopKind.available, ["127.0.0.1", "0.0.0.0", "::1", "2001:db8::7", "::ffff:1.2.3.4", "fe80::1%3"])
    func literals(kind: LoopKind, host: String) async throws {
        try await onLoop(kind) { loop in
            loop.resolver = Scripted { host, _, _ in
                Issue.record("\(host) was asked for")
                return []
            }
            let log = Log<String>()
            try loop.callSoon { log.append("suspended") }
            let found = try await loop.resolve(host, port: 80)
            #expect(found == [try SocketAddress(host, 80)])
            #expect(log.all.isEmpty && loop.workers.threadCount == 0)
        }
    }

    @Test("X6 N10 a name is looked up on a worker, as the system does it", arguments: LoopKind.available)
    func system(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let found = try await loop.resolve("localhost", port: 8080)
            #expect(
                !found.isEmpty
                    && found.allSatisfy { $0.port == 8080 && ($0.host == "::1" || $0.host.hasPrefix("127.")) })
            #expect(Set(found).count == found.count)
            #expect(loop.isOnLoop && loop.workers.threadCount == 1)
            let none = try await loop.resolve("localhost", port: 0)
            #expect(none.map(\.host) == found.map(\.host) && none.allSatisfy { $0.port == 0 })
        }
    }

    @Test(
        "X6 an address with a zone goes to the system, and keeps its zone", .realKernel("interfaces"),
        arguments: LoopKind.available)
    func zone(kind: LoopKind) async throws {
        let number = if_nametoindex("lo")
        try #require(number > 0)
        try await onLoop(kind) { loop in
            let found = try await loop.resolve("fe80::1%lo", port: 80)
            #expect(found.map(\.host) == ["fe80::1%\(number)"] && loop.workers.threadCount == 1)
            // What came back is a literal.
            let again = try await loop.resolve(found[0].host, port: 80)
            #expect(again == found)
            let error = await thrown { _ = try await loop.resolve("fe80::1%nosuchzone", port: 80) }
            #expect(error.resolving?.host == "fe80::1%nosuchzone" && error.resolving?.code != 0)
        }
    }

    @Test("X6 an IPv6 address keeps the number of its zone")
    func zoneNumbers() throws {
        for zone: UInt32 in [1, 2, 4_294_967_295] {
            let address = try SocketAddress("fe80::1%\(zone)", 80)
            #expect(address.description == "[fe80::1%\(zone)]:80")
            address.withSockaddr { sockaddr, length in
                #expect(Int(length) == MemoryLayout<sockaddr_in6>.size)
                sockaddr.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    #expect($0.pointee.sin6_scope_id == zone)
                }
            }
            var core = address.core
            #expect(
                SocketAddress {
                    $0.pointee = core
                    return 0
                } == address)
            var text = [CChar](repeating: 1, count: 10)
            #expect(lc_address_format(&core, &text, 8) == -ENOSPC)
        }
        for text in [
            "fe80::1%", "fe80::1%0", "fe80::1%lo", "fe80::1%4294967296", "fe80::1%1%1", "1.2.3.4%1", "%1", "fe80::1%-1",
        ] {
            #expect(throws: LoopError.invalidAddress(text)) { try SocketAddress(text, 80) }
        }
    }

    @Test("X6 an address has names", arguments: LoopKind.available)
    func names(kind: LoopKind) async throws {
        let address = try SocketAddress("127.0.0.1", 1)
        var host = [CChar](repeating: 0, count: 1025)
        var service = [CChar](repeating: 0, count: 256)
        let code = address.withSockaddr { getnameinfo($0, $1, &host, 1025, &service, 256, 0) }
        try #require(code == 0)
        let expected = host.withUnsafeBufferPointer { host in
            service.withUnsafeBufferPointer {
                HostNames(host: String(cString: host.baseAddress!), service: String(cString: $0.baseAddress!))
            }
        }
        try await onLoop(kind) { loop in
            // Those of a resolver that only knows addresses are the system's.
            for resolver: any Resolver in [SystemResolver(), Scripted { _, _, _ in [] }] {
                loop.resolver = resolver
                let names = try await loop.names(of: address)
                #expect(names == expected && loop.isOnLoop && loop.workers.threadCount == 1)
            }
            loop.resolver = OneName()
            let names = try await loop.names(of: address)
            #expect(names == HostNames(host: "host of 127.0.0.1:1", service: "service"))
        }
    }

    @Test(
        "X6 a service has a name, or the number of its port", .enabled(if: knowsServices, "there is no /etc/services"),
        arguments: LoopKind.available)
    func services(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let byName = try await loop.resolve("127.0.0.1", service: "https")
            #expect(byName == [try SocketAddress("127.0.0.1", 443)] && loop.isOnLoop && loop.workers.threadCount == 1)
            let ofDatagrams = try await loop.resolve("::1", service: "tftp")
            #expect(ofDatagrams == [try SocketAddress("::1", 69)])
            let local = try await loop.resolve("localhost", service: "http")
            #expect(!local.isEmpty && local.allSatisfy { $0.port == 80 })
        }
    }

    @Test(
        "X6 N10 a port's number as text is looked up nowhere; other services are the resolver's",
        arguments: LoopKind.available)
    func serviceNumbers(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let numbered = try await loop.resolve("127.0.0.1", service: "0443")
            #expect(numbered == [try SocketAddress("127.0.0.1", 443)] && loop.workers.threadCount == 0)
            for service in ["65536", "+80", "-1", " 80", "80 ", "", "https\u{0}", "no such service"] {
                let error = await thrown { _ = try await loop.resolve("127.0.0.1", service: service) }
                #expect(error.resolving?.host == service && error.resolving?.code == EAI_SERVICE, "\(service)")
            }
            loop.resolver = OneName()
            let other = try await loop.resolve("127.0.0.1", service: "https")
            #expect(other == [try SocketAddress("127.0.0.1", 5)])
        }
    }

    @Test("X6 H6 a slow lookup is told while debugging", arguments: LoopKind.available)
    func slowLookup(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let told = Log<SlowCallback>()
            loop.onSlowCallback = { _, slow in told.append(slow) }
            loop.resolver = Scripted { _, _, loop in
                try await loop.sleep(for: .milliseconds(2))
                return [try SocketAddress("127.0.0.1", 1)]
            }
            loop.slowCallbackThreshold = .milliseconds(2)
            _ = try await loop.resolve("quiet", port: 1)
            loop.isDebug = true
            _ = try await loop.resolve("slow", port: 1)
            loop.slowCallbackThreshold = .seconds(3600)
            _ = try await loop.resolve("quick", port: 1)
            let lookups = told.all.filter { !$0.keptLoop }
            #expect(lookups.map(\.kind) == ["lookup of \"slow\""])
            #expect(
                lookups.allSatisfy { $0.duration >= .milliseconds(2) && "\($0)".contains("a lookup of \"slow\" took ") }
            )
        }
    }

    @Test(
        "X6 F80 what cannot be a name is refused with the host, the reason and advice", arguments: LoopKind.available,
        ["127.0.0.1\u{0}", "", String(repeating: "a", count: 100_000), String(repeating: "a.", count: 512) + "a"])
    func noName(kind: LoopKind, host: String) async throws {
        try await onLoop(kind) { loop in
            let error = await thrown { _ = try await loop.resolve(host, port: 80) }
            #expect(error.resolving?.host == host && error.resolving?.code == EAI_NONAME)
            let text = error.map { "\($0)" } ?? ""
            #expect(
                text.hasPrefix("look up \"\(host)\": \(String(cString: gai_strerror(EAI_NONAME))). Check the spelling"))
        }
    }

    @Test("X6 H2 each code of the system is explained in sentences")
    func descriptions() {
        let codes = [EAI_AGAIN, EAI_NONAME, EAI_FAIL, EAI_MEMORY, EAI_FAMILY, EAI_SERVICE]
        var texts = codes.map { "\(LoopError.resolving(ResolvingError(host: "h", code: $0)))" }
        texts.append("\(ResolvingError(host: "h", code: EAI_SYSTEM, errno: EMFILE))")
        texts.append("\(ResolvingError(host: "h", reason: "no"))")
        #expect(Set(texts).count == texts.count)
        for text in texts { #expect(text.hasPrefix("look up \"h\": ") && text.hasSuffix("."), "\(text)") }
        #expect(texts[6].contains(String(cString: strerror(EMFILE))))
    }

    // MARK: Others

    @Test(
        "N10 a resolver that was set is asked, on the loop's thread, and may use the loop",
        arguments: LoopKind.available)
    func plugIn(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let here = lc_thread_id()
            let asked = Log<String>()
            loop.resolver = Scripted { host, port, loop in
                #expect(loop.isOnLoop && lc_thread_id() == here)
                try await loop.sleep(for: .milliseconds(1))
                let worker = try await loop.offload { lc_thread_id() }
                #expect(loop.isOnLoop && worker != here)
                asked.append("\(host) \(port)")
                return try ["10.0.0.2", "::7", "10.0.0.2", "10.0.0.1", "::7"].map { host throws(LoopError) in
                    try SocketAddress(host, port)
                }
            }
            let found = try await loop.resolve("printer.example", port: 631)
            #expect(found.map(\.description) == ["10.0.0.2:631", "[::7]:631", "10.0.0.1:631"])
            #expect(asked.all == ["printer.example 631"] && loop.isOnLoop && lc_thread_id() == here)
        }
    }

    @Test("N10 what a resolver throws is told as what it is", arguments: LoopKind.available)
    func foreignErrors(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            loop.resolver = Scripted { host, _, _ in
                if host == "moon.example" { throw Mishap() }
                if host == "full.example" { throw LoopError.workersFull }
                return []
            }
            let strange = await thrown { _ = try await loop.resolve("moon.example", port: 80) }
            #expect(strange == .resolving(ResolvingError(host: "moon.example", reason: "the moon is full")))
            #expect(await thrown { _ = try await loop.resolve("full.example", port: 80) } == .workersFull)
            let empty = await thrown { _ = try await loop.resolve("empty.example", port: 80) }
            #expect(empty.resolving?.host == "empty.example" && empty.resolving?.code == 0)
        }
    }

    @Test("X6 N10 a cancel returns at once, while the system still looks", arguments: LoopKind.available)
    func cancel(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (started, latch, told) = (Latch(), Latch(), Latch())
            defer { latch.open() }
            // As a lookup by the system whose name server does not answer.
            loop.resolver = Scripted { _, _, loop in
                do {
                    _ = try await loop.offload {
                        started.open()
                        return latch.wait()
                    }
                } catch LoopError.cancelled { told.open() }
                return []
            }
            let task = loop.spawn { try await loop.resolve("slow.example", port: 80) }
            try await until("it looks", on: loop) { started.isOpen }
            task.cancel()
            #expect(await loop.error(of: task) == .cancelled(operation: "resolve"))
            #expect(!latch.isOpen)
            try await until("the resolver is told", on: loop) { told.isOpen }
            let cancelledBefore = loop.spawn {
                withUnsafeCurrentTask { $0?.cancel() }
                return try await loop.resolve("slow.example", port: 80)
            }
            #expect(await loop.error(of: cancelledBefore) == .cancelled(operation: "resolve"))
        }
    }

    @Test(
        "N10 a cancel does not wait for a resolver that does not care; its answer is dropped",
        arguments: LoopKind.available)
    func stubborn(kind: LoopKind) async throws {
        try await onLoop(kind) { loop in
            let (started, latch, dropped) = (Latch(), Latch(), Latch())
            loop.resolver = Scripted { _, port, loop in
                started.open()
                await withCheckedContinuation { continuation in
                    onOtherThread {
                        _ = latch.wait()
                        continuation.resume()
                    }
                }
                dropped.open()
                return [try SocketAddress("10.0.0.1", port)]
            }
            let task = loop.spawn { try await loop.resolve("stubborn.example", port: 80) }
            try await until("it looks", on: loop) { started.isOpen }
            task.cancel()
            #expect(await loop.error(of: task) == .cancelled(operation: "resolve"))
            #expect(!latch.isOpen && loop.core.services.waits.isEmpty)
            latch.open()
            try await until("it has answered nobody", on: loop) { dropped.isOpen }
            #expect(loop.isOnLoop)
        }
    }

    @Test("X6 the close of the loop ends lookups", arguments: LoopKind.available)
    func close(kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let (started, latch) = (Latch(), Latch())
            defer { latch.open() }
            let ended = [Latch(), Latch()]
            let errors = Log<LoopError?>()
            loop.resolver = Scripted { _, _, loop in
                defer { ended[1].open() }
                _ = try await loop.offload {
                    started.open()
                    return latch.wait()
                }
                return []
            }
            loop.spawn {
                errors.append(await thrown { _ = try await loop.resolve("slow.example", port: 80) })
                ended[0].open()
            }
            #expect(try loop.pass { started.isOpen })
            try loop.close()
            for latch in ended { #expect(latch.wait()) }
            #expect(errors.all == [.closed])
            #expect(!latch.isOpen)
        }
    }

    @Test("X6 X7 a lookup from elsewhere than the loop's thread is refused", arguments: LoopKind.available)
    func wrongThread(kind: LoopKind) async throws {
        let loop = try kind.makeLoop()
        for host in ["localhost", "127.0.0.1"] {
            let error = await thrown { _ = try await loop.resolve(host, port: 80) }
            #expect(error == .wrongThread(operation: "resolve"))
        }
        let address = try SocketAddress("127.0.0.1", 80)
        #expect(await thrown { _ = try await loop.names(of: address) } == .wrongThread(operation: "names"))
        try loop.close()
        #expect(await thrown { _ = try await loop.resolve("127.0.0.1", port: 80) } == .closed)
        #expect(await thrown { _ = try await loop.names(of: address) } == .closed)
    }
}
