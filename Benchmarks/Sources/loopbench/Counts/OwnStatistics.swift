// SPDX-License-Identifier: Apache-2.0

/// What a server says of itself at its end, in a line `statistics name=count ...`.
enum OwnStatistics {
    static func parse(_ lines: [String]) -> [String: Double] {
        let prefix = "statistics "
        guard let line = lines.last(where: { $0.hasPrefix(prefix) }) else { return [:] }
        let fields = line.dropFirst(prefix.count).split(separator: " ").map { $0.split(separator: "=") }
        let pairs = fields.compactMap { field in
            field.count == 2 ? Double(field[1]).map { (String(field[0]), $0) } : nil
        }
        return Dictionary(pairs) { _, last in last }
    }
}
