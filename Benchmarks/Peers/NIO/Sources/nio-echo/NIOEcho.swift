// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Dispatch
import Foundation
import NIOCore
import NIOPosix

/// SwiftNIO's echo servers, each as its documentation would have it, on one event loop.
@main
struct NIOEcho: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "nio-echo")

    enum API: String, ExpressibleByArgument {
        case handlers
        case asyncChannel = "async-channel"
    }

    @Option(help: "TCP port on 127.0.0.1, 0 for a free one.")
    var port = 0

    @Option(help: "handlers or async-channel.")
    var api = API.handlers

    @Flag(help: "Let the event loop be Swift's global executor too, so that tasks run where their channels are.")
    var takeover = false

    func run() throws {
        // Both need to happen before anything else has asked for the singleton group.
        NIOSingletons.groupLoopCountSuggestion = 1
        if takeover {
            guard NIOSingletons.unsafeTryInstallSingletonPosixEventLoopGroupAsConcurrencyGlobalExecutor() else {
                throw ValidationError("This Swift does not let SwiftNIO take over the global executor.")
            }
        }
        let group = takeover ? .singletonMultiThreadedEventLoopGroup : MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let signals = [SIGTERM, SIGINT].map(endOnSignal)
        defer { withExtendedLifetime(signals) {} }

        switch api {
        case .handlers:
            let listener = try HandlerServer.bind(group, port: port)
            announce(listener)
            try listener.closeFuture.wait()
        case .asyncChannel:
            Task {
                do {
                    try await AsyncChannelServer.serve(group, port: port, whenListening: announce)
                } catch {
                    NIOEcho.exit(withError: error)
                }
            }
            DispatchSemaphore(value: 0).wait()
        }
    }

    private func endOnSignal(_ number: Int32) -> any DispatchSourceSignal {
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { Foundation.exit(0) }
        source.resume()
        return source
    }
}

private func announce(_ listener: any Channel) {
    print("listening on 127.0.0.1:\(listener.localAddress?.port ?? 0)")
    fflush(nil)
}

extension ServerBootstrap {
    /// What both servers agree on. Listeners inherit nothing of it; TCP_NODELAY is each connection's own.
    ///
    /// The receive buffer's own default goes down to 64 bytes. Small messages measured a few per cent cheaper with a
    /// larger minimum, at the same number of system calls, so the peer gets that.
    static func tuned(_ group: any EventLoopGroup) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: SOMAXCONN)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 2048, initial: 2048, maximum: 65536))
    }
}
