// SPDX-License-Identifier: Apache-2.0
//
// PortScanner.swift: which ports of a machine accept connections. Many tries are under way at once, on one thread.
//
//     port-scanner [address [first-last]]            port-scanner 127.0.0.1 1-1024

import EventLoops

@main
enum PortScanner {
    /// Connects under way at a time; each takes a descriptor.
    static let width = 200
    /// A port that does not answer within this is called closed.
    static let patience = Duration.seconds(1)

    static func main() throws {
        let arguments = CommandLine.arguments.dropFirst()
        let host = arguments.first ?? "127.0.0.1"
        let bounds = (arguments.dropFirst().first ?? "1-1024").split(separator: "-").compactMap { UInt16($0) }
        guard let first = bounds.first, let last = bounds.last, first <= last else {
            return print("usage: port-scanner [address [first-last]]")
        }
        let open = try Loops.run { loop in
            var ports = (first...last).makeIterator()
            return await withTaskGroup(of: UInt16?.self) { group in
                func addNext() {
                    guard let port = ports.next() else { return }
                    group.addTask { await answers(host, port, loop) ? port : nil }
                }
                for _ in 0..<width { addNext() }
                var open: [UInt16] = []
                while let port = await group.next() {
                    if let port { open.append(port) }
                    addNext()
                }
                return open.sorted()
            }
        }
        for port in open { print(port) }
    }

    nonisolated(nonsending) static func answers(_ host: String, _ port: UInt16, _ loop: any Loop) async -> Bool {
        let attempt = loop.spawn {
            let connection = try await Connection.connect(to: host, port: port, on: loop)
            connection.abort()
        }
        let limit = try? loop.callLater(patience) { attempt.cancel() }
        defer { limit?.cancel() }
        do {
            try await attempt.value
            return true
        } catch {
            return false
        }
    }
}
