// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

/// The classic way: a handler that writes what it reads and flushes once per batch of reads.
enum HandlerServer {
    static func bind(_ group: any EventLoopGroup, port: Int) throws -> any Channel {
        try ServerBootstrap.tuned(group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(BackPressureHandler(), EchoHandler())
                }
            }
            .bind(host: "127.0.0.1", port: port).wait()
    }
}

private final class EchoHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.write(data, promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.flush()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
