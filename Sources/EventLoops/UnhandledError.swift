// SPDX-License-Identifier: Apache-2.0
//
// UnhandledError.swift: errors that no caller waits for.

/// An error that no caller waits for, and where it came from. It may gain properties.
public struct UnhandledError: Error, CustomStringConvertible {
    /// What was being done, as in `"callback"` or `"accept"`.
    public let message: String
    /// What was thrown.
    public let error: any Error

    public var description: String { "\(message): \(error)" }
}
