// SPDX-License-Identifier: Apache-2.0

/// How this program was called.
enum ThisCommand {
    private static let placesOfFiles = ["--json", "--report"]

    /// As it could be typed again, for a reader of the figures. Where files went is left out: that is nobody's
    /// business, and says nothing about the figures.
    static func repeatable(_ arguments: [String] = CommandLine.arguments) -> String {
        var words = ["loopbench"]
        var skipsNext = false
        for argument in arguments.dropFirst() {
            let name = String(argument.prefix { $0 != "=" })
            if skipsNext {
                skipsNext = false
            } else if placesOfFiles.contains(name) {
                skipsNext = name == argument
            } else {
                words.append(argument.contains(" ") ? "'\(argument)'" : argument)
            }
        }
        return words.joined(separator: " ")
    }
}
