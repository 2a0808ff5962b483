// SPDX-License-Identifier: Apache-2.0
//
// PureFunctionTests.swift: what of the core needs no loop: names of errors, addresses, the words of the probe.

import CLoopCore
import Foundation
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("C core, without a loop")
struct PureFunctionTests {
    private static func string(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    // MARK: Errors

    @Test("H2 errors have their names, whichever sign they come with")
    func errorNames() {
        for (code, name) in [(EPERM, "EPERM"), (ECONNRESET, "ECONNRESET"), (EMFILE, "EMFILE"), (EAGAIN, "EAGAIN")] {
            #expect(String(cString: lc_errno_name(code)) == name)
            #expect(String(cString: lc_errno_name(-code)) == name)
        }
    }

    @Test("H2 numbers that are no errors are named as numbers", arguments: [4000, -4000, 133_700])
    func numbers(_ code: Int32) {
        #expect(String(cString: lc_errno_name(code)) == "errno \(abs(code))")
    }

    // MARK: Posts

    /// Records come from pages of the thread that takes them and go back on another, for ever; they must come round.
    @Test("T12 posts taken by threads that end, and given back elsewhere, are used again")
    func postsComeRound() async {
        let batch = 5000
        var pages: Set<UInt> = []
        for _ in 0..<300 {
            let posts = await withCheckedContinuation { (continuation: CheckedContinuation<[UInt], Never>) in
                Thread { continuation.resume(returning: (0..<batch).map { _ in UInt(bitPattern: lc_post_make()) }) }
                    .start()
            }
            #expect(Set(posts).count == batch && !posts.contains(0))
            for post in posts { lc_post_free(UnsafeMutablePointer(bitPattern: post)) }
            pages.formUnion(posts.map { $0 >> 14 })
        }
        // Some are kept, and other tests post as well; 300 times ten pages would be 3000.
        #expect(pages.count < 1000)
    }

    // MARK: Addresses

    private static func parse(_ host: String, _ port: UInt16) -> (result: Int32, address: lc_address) {
        var address = lc_address()
        return (lc_address_parse(host, port, &address), address)
    }

    private static func format(_ address: lc_address, size: Int = 64) -> (result: Int32, text: String) {
        var text = [CChar](repeating: 0, count: 64)
        let result = withUnsafePointer(to: address) { lc_address_format($0, &text, size) }
        return (result, string(text))
    }

    @Test(
        "K4 literal addresses are read and written back, in their shortest form",
        arguments: [
            ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("::", "::"),
            ("0:0:0:0:0:0:0:1", "::1"), ("2001:DB8::0:5", "2001:db8::5"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ])
    func addresses(_ host: String, _ shortest: String) {
        for port in [0, 1, 80, 65535] as [UInt16] {
            let (result, address) = Self.parse(host, port)
            #expect(result == 0)
            #expect(Int32(address.storage.ss_family) == (host.contains(":") ? AF_INET6 : AF_INET))
            #expect(Self.format(address) == (Int32(port), shortest))
        }
    }

    @Test(
        "F80 what is no literal address is refused",
        arguments: [
            "", " ", "localhost", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", " 127.0.0.1", "127.0.0.1 ",
            "127.0.0.1:80",
            "[::1]", ":::", "::1%lo", "1::2::3", "12345::", "0x7f.1", String(repeating: "1", count: 100),
        ])
    func noAddresses(_ text: String) {
        #expect(Self.parse(text, 80).result == -EINVAL)
    }

    @Test("F80 an address of another family, or a text too short, is an error and not a write")
    func notFormatted() {
        var other = Self.parse("127.0.0.1", 80).address
        other.storage.ss_family = sa_family_t(AF_UNIX)
        #expect(Self.format(other) == (-EAFNOSUPPORT, ""))
        for host in ["192.168.100.100", "2001:db8:1:2:3:4:5:6"] {
            #expect(Self.format(Self.parse(host, 80).address, size: 8) == (-ENOSPC, ""))
        }
    }

    @Test("F57 sockets that cannot be made, bound or asked are errors")
    func sockets() {
        var descriptor: Int32 = -1
        var address = Self.parse("127.0.0.1", 0).address
        address.storage.ss_family = 4000
        #expect(lc_socket_listen(&address, 1, false, &descriptor) == -EAFNOSUPPORT)
        var elsewhere = Self.parse("192.0.2.1", 0).address  // an address of documentation's, nobody's
        #expect(lc_socket_listen(&elsewhere, 1, false, &descriptor) == -EADDRNOTAVAIL)
        #expect(descriptor == -1)
        #expect(lc_address_local(-1, &address) == -EBADF)
        #expect(lc_address_peer(-1, &address) == -EBADF)
    }

    // MARK: The probe's words

    private static func explain(_ error: Int32) -> (cause: String, advice: String) {
        var cause = [CChar](repeating: 0x55, count: Int(LC_PROBE_TEXT))
        var advice = cause
        lc_probe_explain(error, &cause, &advice)
        return (string(cause), string(advice))
    }

    @Test("Z14 each refusal of a ring has a cause with its code's name, and advice")
    func refusals() {
        let refusals = [
            (ENOSYS, "ENOSYS", "seccomp"), (EINVAL, "EINVAL", "Linux 6.1"), (ENOMEM, "ENOMEM", "RLIMIT_MEMLOCK"),
            (EMFILE, "EMFILE", "RLIMIT_NOFILE"), (ENFILE, "ENFILE", "RLIMIT_NOFILE"),
            (EFAULT, "EFAULT", "io_uring_setup(2)"),
        ]
        for (error, name, advice) in refusals {
            for sign in [1, -1] as [Int32] {
                let words = Self.explain(sign * error)
                #expect(words.cause.contains(name), "\(words)")
                #expect(words.advice.contains(advice), "\(words)")
            }
        }
        #expect(Self.explain(0) == ("", ""))
    }

    @Test("Z14 a ring that is not permitted: the sysctl is blamed if it forbids, else a filter")
    func notPermitted() {
        let sysctl = lc_probe_get().pointee.io_uring_disabled
        let words = Self.explain(-EPERM)
        #expect(words.cause.contains("EPERM"))
        #expect(words.cause.contains("kernel.io_uring_disabled is \(sysctl)") == (sysctl > 0))
        #expect(words.cause.contains("seccomp") == (sysctl <= 0))
        #expect(words.advice.contains("seccomp") == (sysctl <= 0))
    }
}
