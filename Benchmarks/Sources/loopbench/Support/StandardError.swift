// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Progress and complaints, kept apart from the report on standard output.
func printToStandardError(_ line: String) {
    // write(2) rather than fputs: Swift 6 sees the C variable `stderr` as shared mutable state.
    _ = (line + "\n").withCString { write(STDERR_FILENO, $0, strlen($0)) }
}
