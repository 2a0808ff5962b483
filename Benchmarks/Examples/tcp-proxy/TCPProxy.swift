// SPDX-License-Identifier: Apache-2.0
//
// TCPProxy.swift: hands connections on to another address. Bytes pass through without a copy, an end of one direction
// is passed on while the other goes on, and a slow reader slows its writer down.
//
//     tcp-proxy port host port

import EventLoops
import Glibc

@main
enum TCPProxy {
    static func main() throws {
        let arguments = CommandLine.arguments.dropFirst()
        guard arguments.count == 3, let port = UInt16(arguments[1]), let targetPort = UInt16(arguments[3]) else {
            return print("usage: tcp-proxy port host port, with an IPv4 or IPv6 address as host")
        }
        let target = try SocketAddress(arguments[2], targetPort)
        try Loops.run { loop in
            let listener = try Listener(on: loop, port: port)
            print("listening on \(listener.address)")
            fflush(nil)  // a pipe would get it at the end
            for try await client in listener {
                loop.spawn { await serve(client, target, loop) }
            }
        }
    }

    /// Who cannot be connected is closed at once.
    nonisolated(nonsending) static func serve(_ client: Connection, _ target: SocketAddress, _ loop: any Loop) async {
        do {
            let server = try await Connection.connect(to: target.host, port: target.port, on: loop)
            let back = loop.spawn { try await pass(server, to: client) }
            do {
                try await pass(client, to: server)
                try await back.value
            } catch {
                client.abort()
                server.abort()
            }
            await server.close()
        } catch {
            print("tcp-proxy: \(error)")
        }
        await client.close()
    }

    nonisolated(nonsending) static func pass(_ from: Connection, to: Connection) async throws(LoopError) {
        while let bytes = try await from.read() {
            try await to.write(bytes)
        }
        try to.finishWriting()
    }
}
