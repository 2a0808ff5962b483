// SPDX-License-Identifier: Apache-2.0

import EventLoops
import Foundation

/// What a server did.
struct ServedCounts {
    var connections = 0
    var reads = 0
    var passes: UInt64 = 0
    var kernelEntries: UInt64 = 0
    var completions: UInt64 = 0

    mutating func add(_ other: ServedCounts) {
        connections += other.connections
        reads += other.reads
        passes += other.passes
        kernelEntries += other.kernelEntries
        completions += other.completions
    }

    /// For `loopbench counts`, which reads the same line from the floors.
    var statisticsLine: String {
        var used = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &used)
        return "statistics ticks=\(passes) entries=\(kernelEntries) completions=\(completions)"
            + " voluntary-switches=\(used.ru_nvcsw) involuntary-switches=\(used.ru_nivcsw)"
    }
}

/// One loop on one thread that echoes. The same text for both kinds of loop.
final class EchoServer: @unchecked Sendable {
    let loop: any Loop
    private let listener: Listener
    private let way: Serve.Way
    private var counts = ServedCounts()
    private var failure: (any Error)?
    /// How many connections may still close before the server ends by itself; nil where it waits to be stopped.
    private var closesLeft: Int?
    private let done = DispatchSemaphore(value: 0)

    var port: UInt16 { listener.address.port }
    var address: SocketAddress { listener.address }

    init(
        loop name: String, way: Serve.Way, address: String, port: UInt16, sharesPort: Bool, untilClosed: Int? = nil
    ) throws {
        loop = try LoopPolicies.resolve(name).policy.makeLoop()
        var options = ListenOptions()
        options.backlog = 4096
        options.reusePort = sharesPort
        listener = try Listener(on: loop, address: address, port: port, options: options)
        self.way = way
        closesLeft = untilClosed
    }

    /// Serves on this thread until `signals` is readable, or for so many seconds unless they are 0.
    func serveHere(until signals: Int32, seconds: Double) {
        loop.spawn { [loop] in
            try? await loop.readable(signals)
            loop.stop()
        }
        do {
            if seconds > 0 { _ = try loop.callLater(.seconds(seconds)) { [loop] in loop.stop() } }
            try serve()
        } catch {
            failure = error
        }
        done.signal()
    }

    /// Serves on a thread of its own until stopped.
    func start() {
        let thread = Thread { [self] in
            do { try serve() } catch { failure = error }
            // The main thread waits for a signal, whoever sends it.
            if closesLeft == 0 { kill(getpid(), SIGTERM) }
            done.signal()
        }
        thread.name = "echo"
        thread.start()
    }

    func stop() { loop.stop() }

    func join() -> ServedCounts {
        done.wait()
        if let failure { printToStandardError("loop ended: \(failure)") }
        return counts
    }

    private func serve() throws {
        switch way {
        case .async: serveAsync()
        case .callback: try serveCallback()
        }
        try loop.run()
        let statistics = loop.statistics
        counts.passes = statistics.passes
        counts.kernelEntries = statistics.kernelEntries
        counts.completions = statistics.completions
        listener.close()
        try loop.close()
    }

    private func serveAsync() {
        loop.spawn { [self] in
            for try await connection in listener {
                counts.connections += 1
                loop.spawn { [self] in await echo(connection) }
            }
        }
    }

    private func echo(_ connection: Connection) async {
        do {
            while let bytes = try await connection.read() {
                counts.reads += 1
                try await connection.write(bytes)
            }
        } catch {
            // The client went away, or the server stops: either way this connection is over.
        }
        await connection.close()
        closed()
    }

    /// On the loop's thread, once per connection.
    private func closed() {
        guard let left = closesLeft, left > 0 else { return }
        closesLeft = left - 1
        if left == 1 { loop.stop() }
    }

    private func serveCallback() throws {
        let echo = Echo(server: self)
        try listener.start { [self] connection in
            counts.connections += 1
            try? connection.start(echo)
        }
    }

    private final class Echo: StreamHandler {
        /// Beyond this much unsent, a peer that does not read is dropped rather than fill our memory.
        private let limit = 16 << 20
        private unowned let server: EchoServer

        init(server: EchoServer) { self.server = server }

        func received(_ bytes: consuming ReceivedBytes, on connection: Connection) {
            do { try connection.send(bytes) } catch { return connection.abort() }
            if connection.unsentByteCount > limit { connection.abort() }
        }

        func lost(_ connection: Connection, error: LoopError?) { server.closed() }
    }
}
