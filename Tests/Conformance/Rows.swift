// SPDX-License-Identifier: Apache-2.0
//
// Rows.swift: the rows of the specification, as Tests/rows.tsv lists them: id, group, loops, name; one a line. And how
// a test says which rows it proves: its name starts with their ids.

/// One row of the specification.
struct Row: Equatable {
    /// Which loops a row is about.
    enum Loops: String {
        case both, selector, proactor
        /// Nothing that runs: the compiler decides it.
        case none
    }

    var id: String
    var group: String
    var loops: Loops
    var name: String

    /// Names are for a table: longer ones are cut in the file that lists them, not here.
    static let longestName = 60

    static func parse(_ text: String) throws -> [Row] {
        var rows: [Row] = []
        var ids: Set<String> = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if line.isEmpty || line.hasPrefix("#") { continue }
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            let place = "rows, line \(index + 1)"
            guard fields.count == 4 else {
                throw Failure("\(place): 4 fields with tabs between them are wanted: id, group, loops, name")
            }
            guard isRowID(fields[0]) else { throw Failure("\(place): not an id of a row: \(fields[0])") }
            guard ids.insert(fields[0]).inserted else { throw Failure("\(place): \(fields[0]) is there twice") }
            guard let loops = Loops(rawValue: fields[2]) else {
                throw Failure("\(place): both, selector, proactor or none is wanted, not: \(fields[2])")
            }
            guard !fields[3].isEmpty, fields[3].count <= longestName else {
                throw Failure("\(place): a name has 1 to \(longestName) characters")
            }
            rows.append(Row(id: fields[0], group: fields[1], loops: loops, name: fields[3]))
        }
        return rows
    }
}

/// One or two capital letters, and one to three digits: `E7`, `N12`.
func isRowID(_ word: some StringProtocol) -> Bool {
    let letters = word.prefix { ("A"..."Z").contains($0) }
    let digits = word.dropFirst(letters.count)
    return (1...2).contains(letters.count) && (1...3).contains(digits.count)
        && digits.allSatisfy { ("0"..."9").contains($0) }
}

/// Splits a test's name into the ids it starts with, with or without a colon or comma behind each, and the rest.
func rowIDs(startingNameOf test: String) -> (ids: [String], rest: String) {
    var ids: [String] = []
    var rest = Substring(test)
    while true {
        let word = rest.prefix { $0 != " " }
        let id = word.hasSuffix(":") || word.hasSuffix(",") ? word.dropLast() : word
        guard isRowID(id) else { return (ids, String(rest)) }
        ids.append(String(id))
        rest = rest.dropFirst(word.count).drop { $0 == " " }
    }
}

/// What went wrong, for whoever ran this program.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
