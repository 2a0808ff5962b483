// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import EventLoops
import FloorSupport
import Foundation

/// `loopbench serve`: TCP echo on one of the loops, with one of the two ways to write a server.
struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves TCP echo on one of the loops.",
        discussion: "Prints the address it listens on, then runs until SIGINT or SIGTERM.")

    enum Way: String, ExpressibleByArgument, CaseIterable { case async, callback }

    @Option(help: "Which loop: selector, proactor, best, or a registered policy.")
    var loop = "best"

    @Option(help: "How the server is written.")
    var api = Way.async

    @Option(help: "The address to listen on.")
    var address = "127.0.0.1"

    @Option(help: "The port to listen on; 0 lets the kernel pick one.")
    var port: UInt16 = 0

    @Option(help: "Loops, each on a thread of its own, which share the port.")
    var threads = 1

    @Flag(help: "Let other processes listen on the same port; the kernel spreads connections over them.")
    var sharePort = false

    @Option(help: "Seconds to serve; 0 means until a signal.")
    var duration = 0.0

    @Option(help: "Connections after whose closing the server ends by itself; 0 means never.")
    var untilClosed = 0

    func validate() throws {
        guard threads > 0, threads <= 1024 else { throw ValidationError("--threads takes 1 to 1024.") }
        guard duration >= 0, duration.isFinite else { throw ValidationError("--duration takes seconds.") }
        guard untilClosed >= 0, untilClosed == 0 || threads == 1 else {
            throw ValidationError("--until-closed takes a count, and one thread.")
        }
    }

    func run() throws {
        raiseDescriptorLimit()
        let signals = floor_signals()
        if signals < 0 { throw BenchmarkFailure("cannot wait for signals: \(String(cString: strerror(-signals)))") }
        var servers: [EchoServer] = []
        do {
            for _ in 0..<threads {
                servers.append(
                    try EchoServer(
                        loop: loop, way: api, address: address, port: servers.first?.port ?? port,
                        sharesPort: sharePort || threads > 1, untilClosed: untilClosed > 0 ? untilClosed : nil))
            }
        } catch let error as LoopError {
            throw BenchmarkFailure("cannot serve: \(error)")
        }
        print("listening on \(servers[0].address)")
        fflush(nil)
        printToStandardError("loop: \(servers[0].loop.selection)")
        for server in servers.dropFirst() { server.start() }
        servers[0].serveHere(until: signals, seconds: duration)
        for server in servers.dropFirst() { server.stop() }
        let total = servers.reduce(into: ServedCounts()) { $0.add($1.join()) }
        print("served \(total.connections) connections, \(total.reads) reads, \(total.kernelEntries) kernel entries")
        print(total.statisticsLine)
    }

    private func raiseDescriptorLimit() {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
    }
}
