// SPDX-License-Identifier: Apache-2.0

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

    /// The toolchain whose runtime is loaded; the runtime itself does not know its patch level.
    private static func swift() -> String? {
        guard let runtime = path(ofLibrary: "libswiftCore"), let end = runtime.firstRange(of: "/lib/swift/") else {
            return nil
        }
        let line = try? Command.output(of: [runtime[..<end.lowerBound] + "/bin/swift", "--version"])
        return line?.firstRange(of: "Swift version ").map { String(line![$0.upperBound...].prefix { $0 != " " }) }
    }

    /// liburing says its version since 2.4; before that, its file's name does.
    private static func liburing() -> String? {
        number(major: "io_uring_major_version", minor: "io_uring_minor_version")
            ?? path(ofLibrary: "liburing").flatMap(version(inFileName:))
    }

    /// `2.3` of `/usr/lib/liburing.so.2.3`
    static func version(inFileName path: String) -> String? {
        path.firstRange(of: ".so.").map { String(path[$0.upperBound...]) }
    }

    /// The commit of the sources this executable was built in; nothing where it has been moved out of them.
    private static func commit() -> String? {
        guard let git = Programs.inPath("git"), let folder = try? Programs.directory(),
            let sources = try? Command.output(of: [git, "-C", folder, "rev-parse", "--show-toplevel"]),
            access(sources + "/Benchmarks/Sources/loopbench", R_OK) == 0
        else { return nil }
        return try? Command.output(of: [git, "-C", folder, "describe", "--always", "--dirty", "--tags"])
    }

    // MARK: Asking this process

    /// Where the loader found a library, links followed.
    private static func path(ofLibrary name: String) -> String? {
        guard let file = fopen("/proc/self/maps", "re") else { return nil }
        defer { fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var capacity = 0
        defer { free(line) }
        while getline(&line, &capacity, file) > 0 {
            let text = String(cString: line!)
            guard text.firstRange(of: "/\(name).so") != nil, let start = text.firstIndex(of: "/") else { continue }
            return String(text[start...].prefix { !$0.isNewline })
        }
        return nil
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
