// SPDX-License-Identifier: Apache-2.0
//
// System.swift: what the scenarios need of the C library, and what their arguments mean.

import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

func exitProcess(_ status: Int32) -> Never { exit(status) }

/// Past the buffers of `print`, which a child that ends at once would not empty.
func writeLine(_ line: String) {
    var line = line + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
}

func setEnvironment(_ name: String, _ value: String) { setenv(name, value, 1) }

func makePipe() -> (reader: Int32, writer: Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { fatalError("pipe: errno \(errno)") }
    return (ends[0], ends[1])
}

func writeByte(_ writer: Int32) { guard write(writer, "x", 1) == 1 else { fatalError("write: errno \(errno)") } }

func closePipe(_ reader: Int32, _ writer: Int32) { for end in [reader, writer] { close(end) } }

func makeKind(_ arguments: [String]) throws -> LoopKind {
    guard let name = arguments.first, let kind = LoopKind(rawValue: name) else { throw Failure("Which kind of loop?") }
    return kind
}

func makeErrno(_ arguments: [String]) throws -> Int32 {
    let known = ["EINVAL": EINVAL, "EMFILE": EMFILE, "ENOMEM": ENOMEM, "ENOSYS": ENOSYS, "EPERM": EPERM]
    guard let name = arguments.first, let errno = known[name] else { throw Failure("Which errno?") }
    return errno
}
