// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// Lists with commas between, as given on the command line.
enum Choices {
    /// `proactor async,nio handlers`, in the order of reports and each once.
    static func contenders(_ list: String) throws -> [Contender] {
        let chosen = try parse(list) { name in
            guard let contender = Contender(rawValue: name) else {
                let names = Contender.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("There is no contender \"\(name)\". There are: \(names).")
            }
            return contender
        }
        return Contender.allCases.filter(chosen.contains)
    }

    /// `50/64/1,1000/64/1`: connections, message bytes, messages in flight on each.
    static func scenarios(_ list: String) throws -> [Scenario] {
        try parse(list) { name in
            let numbers = name.split(separator: "/", omittingEmptySubsequences: false).compactMap { Int($0) }
            guard numbers.count == 3, numbers.allSatisfy({ $0 >= 1 }), name.filter({ $0 == "/" }).count == 2 else {
                throw ValidationError("\"\(name)\" is not connections/bytes/depth, as in 50/64/1.")
            }
            return Scenario(connections: numbers[0], messageBytes: numbers[1], depth: numbers[2])
        }
    }

    private static func parse<Item>(_ list: String, _ item: (String) throws -> Item) throws -> [Item] {
        try list.split(separator: ",").map { part in
            try item(String(part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed()))
        }
    }
}
