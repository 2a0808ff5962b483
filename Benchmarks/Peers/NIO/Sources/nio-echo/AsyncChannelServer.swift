// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

/// The way for async code: a task per connection that reads and writes through NIOAsyncChannel.
enum AsyncChannelServer {
    static func serve(
        _ group: any EventLoopGroup, port: Int, whenListening announce: (any Channel) -> Void
    ) async throws {
        let listener = try await ServerBootstrap.tuned(group)
            .bind(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        announce(listener.channel)
        try await withThrowingDiscardingTaskGroup { tasks in
            try await listener.executeThenClose { connections in
                for try await connection in connections {
                    tasks.addTask { await echo(connection) }
                }
            }
        }
    }

    /// A connection's error ends that connection and nothing else.
    private static func echo(_ connection: NIOAsyncChannel<ByteBuffer, ByteBuffer>) async {
        try? await connection.executeThenClose { inbound, outbound in
            for try await bytes in inbound {
                try await outbound.write(bytes)
            }
        }
    }
}
