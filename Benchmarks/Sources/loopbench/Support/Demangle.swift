// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Readable names of Swift functions, from the runtime this program runs on.
enum Demangle {
    /// `name` itself where it is not a mangled one.
    static func swift(_ name: String) -> String {
        guard name.hasPrefix("$s") else { return name }
        guard let readable = name.withCString({ demangle($0, strlen($0), nil, nil, 0) }) else { return name }
        defer { free(readable) }
        return String(cString: readable)
    }
}

/// Of the Swift runtime, which has it for its own backtraces. Returns memory from malloc, or nil.
@_silgen_name("swift_demangle")
private func demangle(
    _ name: UnsafePointer<CChar>, _ length: Int, _ output: UnsafeMutablePointer<CChar>?,
    _ outputLength: UnsafeMutablePointer<Int>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?
