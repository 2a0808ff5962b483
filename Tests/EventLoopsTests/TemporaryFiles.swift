// SPDX-License-Identifier: Apache-2.0
//
// TemporaryFiles.swift: directories and files of one test's own, where the environment has them.

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// For mkdtemp and mkstemp, which write the name over it.
private func makeTemplate() -> [CChar] {
    let place = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    return Array("\(place)/event-loops-XXXXXX".utf8CString)
}

/// A directory, until it is removed with the files in it: `defer { directory.remove() }`.
struct TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        var template = makeTemplate()
        guard let made = mkdtemp(&template) else { throw IOError(errno: errno, operation: "mkdtemp") }
        path = String(cString: made)
    }

    func remove() {
        for name in names { unlink("\(path)/\(name)") }
        rmdir(path)
    }

    /// Makes a file in it.
    /// - Returns: Its path.
    @discardableResult
    func file(_ name: String, _ text: String = "", mode: mode_t = 0o600) throws -> String {
        let path = "\(path)/\(name)"
        let descriptor = try check(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600), "open")
        defer { close(descriptor) }
        try check(write(descriptor, text, text.utf8.count), "write")
        try check(fchmod(descriptor, mode), "fchmod")
        return path
    }

    /// Of the files in it, in order.
    var names: [String] { entries(of: path).sorted() }
}

/// A file without a name, which goes with its descriptor. It stands at its beginning.
final class TemporaryFile: Sendable {
    let descriptor: Int32

    init(_ bytes: [UInt8]) throws {
        var template = makeTemplate()
        descriptor = try check(mkstemp(&template), "mkstemp")
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        unlink(template)
        var written = 0
        while written < bytes.count {
            written += try check(
                bytes.withUnsafeBytes {
                    pwrite(descriptor, $0.baseAddress! + written, bytes.count - written, off_t(written))
                },
                "pwrite")
        }
    }

    deinit { close(descriptor) }

    var position: Int { Int(lseek(descriptor, 0, SEEK_CUR)) }
}
