// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Glibc

/// The versions of what the figures depend on besides kernel and CPU, asked of what this process has loaded rather
/// than of what is installed. What cannot be told is absent.
enum Versions {
    static func present() -> [String: String] {
        [
            "Swift": swift(),
            "glibc": words(of: "gnu_get_libc_version"),
            "liburing": liburing(),
            "libev": number(major: "ev_version_major", minor: "ev_version_minor"),
            "swift-event-loops": commit(),
        ].compactMapValues { $0 }
    }

    /// The standard library's, which comes with the compiler.
    private static func swift() -> String {
        "\(_SwiftStdlibVersion.current)"
    }

    /// liburing says its version since 2.4; before that, its file's name does.
    private static func liburing() -> String? {
        if let version = number(major: "io_uring_major_version", minor: "io_uring_minor_version") { return version }
        let mappings = text(ofFile: "/proc/self/maps")?.split(separator: "\n") ?? []
        return mappings.first { $0.contains("/liburing.so.") }.flatMap { version(inFileName: String($0)) }
    }

    /// `2.3` of `/usr/lib/liburing.so.2.3`
    static func version(inFileName path: String) -> String? {
        path.range(of: ".so.").map { String(path[$0.upperBound...]) }
    }

    /// The commit of the sources this executable was built in; nothing where it has been moved out of them.
    private static func commit() -> String? {
        guard let git = Programs.inPath("git"), let folder = try? Programs.directory() else { return nil }
        let command = [git, "-C", folder, "describe", "--always", "--dirty", "--tags"]
        guard let sources = try? Command.output(of: [git, "-C", folder, "rev-parse", "--show-toplevel"]),
            access(sources + "/Benchmarks/Sources/loopbench", R_OK) == 0
        else { return nil }
        return try? Command.output(of: command)
    }

    private static func words(of function: String) -> String? {
        typealias Function = @convention(c) () -> UnsafePointer<CChar>
        return dlsym(nil, function).map { String(cString: unsafeBitCast($0, to: Function.self)()) }
    }

    private static func number(major: String, minor: String) -> String? {
        typealias Function = @convention(c) () -> CInt
        guard let major = dlsym(nil, major), let minor = dlsym(nil, minor) else { return nil }
        return "\(unsafeBitCast(major, to: Function.self)()).\(unsafeBitCast(minor, to: Function.self)())"
    }
}
