// SPDX-License-Identifier: Apache-2.0
//
// HostileInputTests.swift: text and numbers that nobody means well with. What comes of them is an error or what they
// say; nothing traps.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// SplitMix64: the same inputs in every run.
private struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }

    mutating func text() -> String {
        let count = Int.random(in: 0...Int.random(in: 0...3, using: &self) * 20, using: &self)
        return (0..<count).map { _ in Self.pieces.randomElement(using: &self)! }.joined()
    }

    /// What addresses are made of, and what looks as if they were: digits of other scripts, zero bytes, marks, and
    /// scalars of up to four bytes.
    private static let pieces = [
        "0", "1", "7", "9", "10", "127", "255", "256", "f", "ffff", "FFFF", "x", ".", ".", ".", ":", ":", "::", "::1",
        "127.0.0.1", "2001:db8::1", "[", "]", "%", "%lo", "/8", "-1", "+1", " ", "\t", "\r\n", "\0", "\u{7f}", "\u{85}",
        "\u{200d}", "\u{301}", "\u{feff}", "\u{fffd}", "\u{10ffff}", "٣", "１", "²", "Ⅷ", "．", "：", "é", "👩‍👩‍👧‍👧",
        "localhost", "selector", ":99999", ":65536", ":-1",
    ]

    /// Mostly the numbers at which something changes.
    mutating func number() -> UInt32 {
        let edges: [UInt32] = [
            0, 1, 2, 3, 255, 256, 32767, 32768, 32769, 65535, 65536, 1 << 30, 1 << 31, .max - 1, .max,
        ]
        return Bool.random(using: &self)
            ? edges.randomElement(using: &self)! : UInt32.random(in: 0 ... .max, using: &self)
    }
}

@Suite("Hostile input")
struct HostileInputTests {
    // MARK: Addresses

    /// What of text can be an address: Linux reads nothing else as one.
    private func couldBeAddress(_ text: String) -> Bool {
        text.utf8.count <= 45 && text.utf8.allSatisfy { "0123456789abcdefABCDEF:.".utf8.contains($0) }
    }

    private func check(_ text: String, _ port: UInt16) -> Bool {
        do throws(LoopError) {
            let address = try SocketAddress(text, port)
            #expect(couldBeAddress(text), "\(text.prefix(100).debugDescription) is an address")
            #expect(address.host == text)
            #expect(address.port == port)
            #expect(address.description == (text.contains(":") ? "[\(text)]:\(port)" : "\(text):\(port)"))
            return true
        } catch {
            #expect(error == .invalidAddress(text))
            #expect(error.description.utf8.count > text.utf8.count)
            return false
        }
    }

    @Test("F80 random text is an address or an error")
    func randomAddresses() {
        var random = Seeded(state: 80)
        var addresses = 0
        for _ in 0..<20_000 {
            addresses += check(random.text(), UInt16.random(in: 0...65535, using: &random)) ? 1 : 0
        }
        #expect(addresses > 20 && addresses < 10_000, "\(addresses) of 20000 were addresses")
    }

    /// Not a parameter: a zero byte would get into the test's log.
    @Test("F80 text of a million characters is no address")
    func longText() {
        for piece in ["1", "127.0.0.1", "::", ":", "f", ".", "\0", "٣", "👩‍👩‍👧‍👧", "\u{301}"] {
            let long = String(repeating: piece, count: 1_000_000 / piece.count)
            #expect(!check(long, 80), "\(piece.debugDescription)")
            #expect(!check("127.0.0.1" + long, 80), "\(piece.debugDescription)")
        }
    }

    @Test(
        "F80 a port in the text is no part of an address",
        arguments: [
            "127.0.0.1:0", "127.0.0.1:80", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]:80", "[::1]", "127.0.0.1:",
        ])
    func ports(_ text: String) { #expect(!check(text, 80)) }

    // MARK: Names of policies

    @Test("F80 random text names no policy, and the error says which it was")
    func randomNames() {
        var random = Seeded(state: 81)
        let long = ["selector\0", "selector ", "", "Selector", String(repeating: "selector", count: 125_000)]
        for name in long + (0..<2000).map({ _ in random.text() }) {
            let known = LoopPolicies.registeredNames
            guard !known.contains(name) else { continue }
            do throws(LoopError) {
                _ = try LoopPolicies.resolve(name)
                Issue.record("\(name.prefix(100).debugDescription) names a policy")
            } catch {
                guard case .unknownPolicy(name, _) = error else {
                    Issue.record("\(name.prefix(100).debugDescription): \(error)")
                    continue
                }
                #expect(error.description.utf8.count > name.utf8.count)
            }
        }
    }

    // MARK: Numbers

    @Test("F80 any number as an errno is described")
    func anyErrno() {
        var random = Seeded(state: 82)
        let edges: [Int32] = [.min, .min + 1, -134, -133, -1, 0, 1, 41, 58, 133, 134, 4095, 4096, .max - 1, .max]
        for number in edges + (0..<500).map({ _ in Int32.random(in: .min ... .max, using: &random) }) {
            let error = IOError(errno: number, operation: "read")
            #expect(error.errno >= 0)
            #expect(!error.name.isEmpty)
            #expect(error.description.contains(error.name))
            let unavailability = LoopUnavailability(errno: number)
            #expect(unavailability.errno == error.errno)
            #expect(unavailability.cause.isEmpty == (number == 0))
        }
    }

    @Test("F80 options of any size make a loop, or an error of memory", arguments: LoopKind.available)
    func anyOptions(_ kind: LoopKind) async throws {
        try await onThread {
            var random = Seeded(state: 83)
            var made = 0
            for _ in 0..<60 {
                var options = LoopOptions()
                options.bufferCount = random.number()
                options.bufferSize = random.number()
                options.eventsPerPass = random.number()
                options.acceptBatch = random.number()
                options.submissionEntries = random.number()
                options.completionEntries = random.number()
                options.withoutFeatures = ProactorFeatures(rawValue: random.number())
                do throws(LoopError) {
                    let loop = try make(kind, options)
                    made += 1
                    try loop.runOnce(.noWait)
                    try loop.close()
                } catch {
                    guard case .io(let error) = error else { throw error }
                    #expect(error.errno == ENOMEM, "\(error), of \(options)")
                }
            }
            #expect(made > 0)
        }
    }

    private func make(_ kind: LoopKind, _ options: LoopOptions) throws(LoopError) -> any Loop {
        switch kind {
        case .selector: try SelectorLoop(options: options)
        case .proactor: try ProactorLoop(options: options)
        }
    }
}
