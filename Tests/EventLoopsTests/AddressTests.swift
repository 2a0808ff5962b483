// SPDX-License-Identifier: Apache-2.0
//
// AddressTests.swift: addresses made of text.

import EventLoops
import Testing

@Suite("Addresses") struct AddressTests {
    /// C would read as far as the first zero byte, and find an address there.
    @Test("F80 text that is an address only up to a zero byte is none")
    func zeroBytes() {
        for text in ["127.0.0.1\u{0}.example", "::1\u{0}", "\u{0}", "\u{0}127.0.0.1"] {
            #expect(throws: LoopError.invalidAddress(text), "\(text.debugDescription)") { try SocketAddress(text, 80) }
        }
    }

    @Test(
        "F80 text that is no address is refused, however long",
        arguments: ["", "localhost", "1.2.3.4.5", "::g", "٣.1.1.1"])
    func noAddresses(_ text: String) {
        #expect(throws: LoopError.invalidAddress(text)) { try SocketAddress(text, 80) }
        let long = String(repeating: text + "1", count: 10_000)
        #expect(throws: LoopError.invalidAddress(long)) { try SocketAddress(long, 80) }
    }
}
