// SPDX-License-Identifier: Apache-2.0
//
// Platform.swift: the few calls of the C library that Swift makes itself.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

func writeToStandardError(_ line: String) {
    var line = line + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
}

func closeDescriptor(_ descriptor: Int32) { _ = close(descriptor) }

/// The text that `fill` writes, zero-terminated, into a buffer of `capacity` bytes.
func text(capacity: Int, _ fill: (UnsafeMutablePointer<CChar>) -> Void) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { buffer in
        buffer[0] = 0
        fill(buffer.baseAddress!)
        return String(cString: buffer.baseAddress!)
    }
}
