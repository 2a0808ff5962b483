// SPDX-License-Identifier: Apache-2.0

/// What an idle connection costs.
extension GrowthMeasures {
    /// Some connections with large messages come first and stay: they make the server touch its buffers, which are
    /// there once and not per connection.
    func memory(_ servers: ServerGroup, _ connections: Int) throws -> Figures {
        let early = try Crowd(connections: 64, to: servers, depth: 4, settings: settings)
        try early.connect(64)
        _ = try early.echo(20, messageBytes: 16 << 10)
        let crowd = try Crowd(connections: connections, to: servers, settings: settings)
        servers.waitUntilIdle()
        let userBefore = servers.anonymousBytes
        let kernelBefore = KernelMemory.socketBytes()

        try crowd.connect(connections)
        servers.waitUntilIdle()
        let userConnected = servers.anonymousBytes
        let outcome = try crowd.echo(1, messageBytes: Self.messageBytes)
        servers.waitUntilIdle()
        var figures: Figures = [
            .userBytesPerConnectionBeforeEcho: Double(userConnected - userBefore) / Double(connections),
            .userBytesPerConnection: Double(servers.anonymousBytes - userBefore) / Double(connections),
            .mismatches: Double(outcome.mismatches),
            .generatorProcesses: Double(crowd.processes),
        ]
        if let before = kernelBefore, let after = KernelMemory.socketBytes() {
            figures[.kernelBytesPerConnection] = Double(after - before) / Double(connections) / 2
        }
        return figures
    }
}
