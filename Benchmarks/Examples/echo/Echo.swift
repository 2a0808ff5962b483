// SPDX-License-Identifier: Apache-2.0
//
// Echo.swift: sends back what it gets.
//
//     echo [port]            LOOP_POLICY=selector echo 7000

import EventLoops
import Glibc

@main
enum Echo {
    static func main() throws {
        let port = CommandLine.arguments.dropFirst().first.flatMap(UInt16.init) ?? 7000
        try Loops.run { loop in
            let listener = try Listener(on: loop, port: port)
            print("listening on \(listener.address)")
            fflush(nil)  // a pipe would get it at the end
            for try await connection in listener {
                loop.spawn {
                    while let bytes = try await connection.read() {
                        try await connection.write(bytes)
                    }
                    await connection.close()
                }
            }
        }
    }
}
