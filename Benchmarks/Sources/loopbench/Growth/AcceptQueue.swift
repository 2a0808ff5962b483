// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Connections the kernel has made and a server has not accepted yet, as /proc/net/tcp tells them.
enum AcceptQueue {
    private static let secondsMax = 20.0

    static func waitUntilEmpty(port: UInt16) throws {
        let end = MonotonicClock.nanoseconds() + UInt64(secondsMax * 1e9)
        while let waiting = length(port: port), waiting > 0 {
            guard MonotonicClock.nanoseconds() < end else {
                throw BenchmarkFailure("\(waiting) connections were not accepted within \(Int(secondsMax)) s")
            }
            usleep(200)
        }
    }

    /// Over all sockets that listen there, or nil where nobody does or the file cannot be read.
    static func length(port: UInt16) -> Int? {
        guard let file = fopen("/proc/net/tcp", "re") else { return nil }
        defer { fclose(file) }
        // Listening sockets come first; reading on would list every connection of the machine.
        var bytes = [UInt8](repeating: 0, count: 32 << 10)
        let count = fread(&bytes, 1, bytes.count, file)
        return parse(String(decoding: bytes.prefix(count), as: UTF8.self), port: port)
    }

    /// Lines are `number: ADDRESS:PORT ADDRESS:PORT STATE SENDING:WAITING ...`, in hexadecimal; state 0A listens.
    static func parse(_ table: String, port: UInt16) -> Int? {
        var total: Int?
        for line in table.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            guard fields.count > 4, fields[3] == "0A",
                fields[1].split(separator: ":").last.flatMap({ UInt16($0, radix: 16) }) == port,
                let waiting = fields[4].split(separator: ":").last.flatMap({ Int($0, radix: 16) })
            else { continue }
            total = (total ?? 0) + waiting
        }
        return total
    }
}
