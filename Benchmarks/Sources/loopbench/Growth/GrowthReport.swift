// SPDX-License-Identifier: Apache-2.0

/// The tables of `loopbench grow`.
struct GrowthReport {
    let schedule: GrowthSchedule
    let results: GrowthResults

    private struct Column {
        let title: String
        let figure: GrowthFigure
        var digits = 0
        var scale = 1.0
        var isRatio = false
    }

    func lines() -> [String] {
        var lines = [
            "Linux \(results.machine.kernel), \(results.machine.cpu), \(results.machine.cores) CPUs, "
                + results.machine.date,
            "\(schedule.rounds) rounds, \(schedule.settings.measured) s each, medians; "
                + "descriptor limit \(schedule.settings.descriptorLimit), TCP congestion control \(congestionControl)",
        ]
        for (measure, connections) in schedule.steps {
            lines += ["", title(measure, connections)]
            lines += table(measure, connections).lines().map { "  " + $0 }
        }
        return lines + growthTable + failures
    }

    /// Some pace what they send, on the loopback device too, which shows with large messages.
    private var congestionControl: String {
        text(ofFile: "/proc/sys/net/ipv4/tcp_congestion_control")?.split(separator: "\n").first.map(String.init)
            ?? "unknown"
    }

    private func title(_ measure: GrowthMeasure, _ connections: Int) -> String {
        let servers = (try? schedule.settings.serverProcesses(for: connections)) ?? 0
        let split = servers > 1 ? ", shared by \(servers) server processes" : ""
        let plural = connections == 1 ? "connection" : "connections"
        let what =
            switch measure {
            case .echo: "echo: \(connections) \(plural) x 64 bytes x depth 1"
            case .memory: "memory: \(connections) idle connections; kernel memory is an estimate for one end"
            case .accept: "accept: \(connections) connections in bursts of 1000"
            case .churn: "churn: \(connections) clients connect, have 64 bytes echoed, reset the connection"
            case .slow: "slow reader: \(connections - 1) connections x 64 bytes, and one that sends and does not read"
            case .mixed: "mixed sizes: \(connections) connections x 16 bytes to 64 KiB"
            }
        return what + split
    }

    private func columns(_ measure: GrowthMeasure) -> [Column] {
        let rate = [
            Column(title: "requests/s", figure: .requestsPerSecond),
            Column(title: "rate / floor", figure: .requestsPerSecond, isRatio: true),
        ]
        let cost = [
            Column(title: "CPU us/request", figure: .serverMicrosecondsPerRequest, digits: 2),
            Column(title: "CPU / floor", figure: .serverMicrosecondsPerRequest, isRatio: true),
        ]
        let coming = [
            Column(title: "connections/s", figure: .connectionsPerSecond),
            Column(title: "rate / floor", figure: .connectionsPerSecond, isRatio: true),
            Column(title: "CPU us/connection", figure: .serverMicrosecondsPerConnection, digits: 2),
            Column(title: "CPU / floor", figure: .serverMicrosecondsPerConnection, isRatio: true),
        ]
        let waiting = [
            Column(title: "p50 us", figure: .p50Nanoseconds, digits: 1, scale: 1e-3),
            Column(title: "p99 us", figure: .p99Nanoseconds, digits: 1, scale: 1e-3),
        ]
        return switch measure {
        case .echo: rate + cost + waiting
        case .memory:
            [
                Column(title: "user B, connected", figure: .userBytesPerConnectionBeforeEcho),
                Column(title: "user B, after an echo", figure: .userBytesPerConnection),
                Column(title: "kernel B", figure: .kernelBytesPerConnection),
            ]
        case .accept: coming
        case .churn:
            coming + waiting + [
                Column(title: "descriptors left", figure: .serverDescriptorsLeft),
                Column(title: "KiB left", figure: .serverBytesLeft, scale: 1.0 / 1024),
            ]
        case .slow:
            [
                Column(title: "without: requests/s", figure: .requestsPerSecondWithoutSlowReader),
                Column(title: "with", figure: .requestsPerSecond),
                Column(title: "with / without", figure: .slowReaderRatio, digits: 2),
                Column(title: "p99 us", figure: .p99Nanoseconds, digits: 1, scale: 1e-3),
                Column(title: "server KiB grown", figure: .serverBytesGrown, scale: 1.0 / 1024),
                Column(title: "slow KiB compared", figure: .slowReaderBytes, scale: 1.0 / 1024),
            ]
        case .mixed:
            [
                Column(title: "MB/s", figure: .bytesPerSecond, digits: 1, scale: 1e-6),
                Column(title: "bytes / floor", figure: .bytesPerSecond, isRatio: true),
            ] + rate + cost + waiting
        }
    }

    private func table(_ measure: GrowthMeasure, _ connections: Int) -> Table {
        let columns = columns(measure)
        var table = Table(header: ["contender"] + columns.map(\.title))
        for contender in schedule.contenders {
            table.add(
                [contender.rawValue]
                    + columns.map { column in
                        if column.isRatio {
                            return contender.isFloor
                                ? ""
                                : Format.ratio(
                                    results.ratioToFloor(column.figure, measure, contender, connections))
                        }
                        let value = results.spread(column.figure, measure, contender, connections)?.median
                        return Format.fixed(value.map { $0 * column.scale }, column.digits)
                    })
        }
        return table
    }

    /// From the smallest number of connections that keeps a server busy to each larger one.
    private var growthTable: [String] {
        guard schedule.measures.contains(.echo) else { return [] }
        let counts = schedule.connections.filter { $0 >= 50 }.sorted()
        guard let few = counts.first, counts.count > 1 else { return [] }
        var table = Table(header: ["contender"] + counts.dropFirst().map { "\(few) to \($0)" })
        for contender in schedule.contenders where !contender.isFloor {
            table.add(
                [contender.rawValue]
                    + counts.dropFirst().map {
                        Format.ratio(results.growthOverFloor(contender, few: few, many: $0))
                    })
        }
        return ["", "growth of CPU per request, over the floor's own growth"] + table.lines().map { "  " + $0 }
    }

    private var failures: [String] {
        let lines = results.growth.compactMap { one in
            one.failure.map {
                "\(one.contender.rawValue), \(one.measure.rawValue) with \(one.connections), round \(one.round): \($0)"
            }
        }
        return lines.isEmpty ? [] : ["", "failed:"] + lines.map { "  " + $0 }
    }
}
