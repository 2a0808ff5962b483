// SPDX-License-Identifier: Apache-2.0

import LoadGenerator

/// One that does not read, among others that do.
extension GrowthMeasures {
    /// Enough to fill the sockets' buffers several times; less than `loopbench serve` lets a peer owe.
    private static let slowBytesMax: UInt64 = 12 << 20

    func slowReader(_ servers: ServerGroup, _ connections: Int) throws -> (Figures, String?) {
        let crowd = try Crowd(connections: connections - 1, to: servers, settings: settings)
        try crowd.connect(connections - 1)
        let without = try timed(crowd, servers) { $0.message_bytes = UInt32(Self.messageBytes) }
        let memory = servers.anonymousBytes

        let slow = try Crowd(connections: 1, to: servers, settings: settings)
        var task = crowd_task()
        task.work = CROWD_SLOW
        task.count = 1
        task.bytes_max = Self.slowBytesMax
        // Longer than the others need, so that it reads nothing before they are done.
        window(&task, warmup: 2 * settings.warmup + 0.5)
        try slow.start(task)
        var figures: Figures
        var failure: String?
        do {
            figures = try timed(crowd, servers) { $0.message_bytes = UInt32(Self.messageBytes) }
        } catch {
            figures = [:]
            failure = "the fast ones, beside a slow reader: \(error)"
        }
        figures[.serverBytesGrown] = Double(servers.anonymousBytes - memory)
        figures[.requestsPerSecondWithoutSlowReader] = without[.requestsPerSecond]
        if let with = figures[.requestsPerSecond], let alone = without[.requestsPerSecond] {
            figures[.slowReaderRatio] = with / alone
        }
        do {
            let outcome = try slow.finish()
            figures[.slowReaderBytes] = Double(outcome.bytes)
            figures[.mismatches, default: 0] += Double(outcome.mismatches)
        } catch {
            failure = [failure, "\(error)"].compactMap { $0 }.joined(separator: "; ")
        }
        return (figures, failure)
    }
}
