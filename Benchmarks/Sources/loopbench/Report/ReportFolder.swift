// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Where `run --report` leaves its JSON and, where it can be drawn, the page.
struct ReportFolder {
    let path: String

    private var results: String { path + "/results.json" }

    /// - Throws: ``BenchmarkFailure`` when the folder cannot be made. To be asked before minutes of measuring.
    init(path: String) throws {
        self.path = path
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw BenchmarkFailure("cannot make the folder \(path): \(error)")
        }
    }

    /// The JSON first: it is there also when nothing can be drawn.
    func write(_ documents: [any Encodable]) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(Documents(documents: documents)).write(to: URL(filePath: results), options: .atomic)
        guard let renderer = try Renderer() else {
            print("measured, but not drawn: \(results)")
            throw Renderer.unavailable
        }
        try renderer.draw([results], into: path)
    }

    /// Several commands' JSON in one file, each as it would be alone.
    private struct Documents: Encodable {
        let documents: [any Encodable]

        private enum Keys: CodingKey { case documents }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: Keys.self)
            var list = container.nestedUnkeyedContainer(forKey: .documents)
            for document in documents { try list.encode(document) }
        }
    }
}
