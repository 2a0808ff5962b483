// SPDX-License-Identifier: Apache-2.0
//
// Chat.swift: whatever one client says, all others hear. Who does not listen is shown out.
//
//     chat [port]            nc 127.0.0.1 7001

import EventLoops
import Glibc

/// Those who are in the room. Everything happens on the loop's thread, so nothing needs a lock.
final class Room {
    /// A client with more than this left to read holds up memory that the others need.
    static let unreadBytesMax = 1 << 20
    private var clients: [ObjectIdentifier: Client] = [:]

    func enter(_ connection: Connection) throws(LoopError) {
        let client = Client(self)
        try connection.start(client)
        clients[ObjectIdentifier(connection)] = client
        client.connection = connection
    }

    func say(_ bytes: RawSpan, from speaker: Connection) {
        for client in clients.values where client.connection !== speaker {
            guard let connection = client.connection else { continue }
            if connection.unsentByteCount + bytes.byteCount > Self.unreadBytesMax {
                connection.abort()  // tells the client that it is lost, which leaves
            } else {
                try? connection.send(copying: bytes)
            }
        }
    }

    func leave(_ connection: Connection) { clients[ObjectIdentifier(connection)] = nil }
}

final class Client: StreamHandler {
    private let room: Room
    weak var connection: Connection?
    init(_ room: Room) { self.room = room }

    func received(_ bytes: consuming ReceivedBytes, on connection: Connection) {
        room.say(bytes.bytes, from: connection)
    }

    func lost(_ connection: Connection, error: LoopError?) { room.leave(connection) }
}

@main
enum Chat {
    static func main() throws {
        let port = CommandLine.arguments.dropFirst().first.flatMap(UInt16.init) ?? 7001
        try Loops.run { loop in
            let room = Room()
            let listener = try Listener(on: loop, port: port)
            print("listening on \(listener.address)")
            fflush(nil)  // a pipe would get it at the end
            for try await connection in listener {
                try room.enter(connection)
            }
        }
    }
}
