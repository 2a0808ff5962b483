// SPDX-License-Identifier: Apache-2.0
//
// DescriptionTests.swift: what errors, choices and features say of themselves, where a person will read it.

import EventLoops
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite("Descriptions") struct DescriptionTests {
    @Test("H2 each error says what happened, in sentences, and in words of its own")
    func errors() throws {
        let attempt = ConnectAttempt(
            address: try SocketAddress("::1", 1), error: IOError(errno: ETIMEDOUT, operation: "connect to [::1]:1"))
        let errors: [LoopError] = [
            .noCurrentLoop(thread: "worker"), .noRunningLoop, .alreadyRunning, .anotherLoopRunning, .running, .closed,
            .forked, .wrongThread(operation: "read"), .boundToAnotherThread, .stoppedBeforeCompletion,
            .unavailable(LoopUnavailability(errno: ENOSYS)), .unknownPolicy(name: "fast", known: ["best"]),
            .cancelled(operation: "read"), .busy(operation: "read"), .connectionClosed(operation: "read"),
            .finishedWriting, .notPollable(descriptor: 71), .ownedByTransport(descriptor: 71),
            .invalidAddress("nowhere"), .invalidSignal(71),
            .aborted(AbortReason(IOError(errno: ENOENT, operation: "read"))),
            .datagramTooLarge(byteCount: 70_000), .connectedElsewhere(to: "127.0.0.1:1", not: "127.0.0.1:2"),
            .workersFull, .workersShutDown, .resolving(ResolvingError(host: "nobody.test", reason: "unknown")),
            .notStarted(program: "sort", IOError(errno: EACCES, operation: "execve")),
            .sendFileNotAvailable(descriptor: 71), .handlerFailed(callback: "received", error: "Mishap()."),
            .connectFailed([attempt]),
        ]
        let descriptions = errors.map(\.description)
        for description in descriptions { #expect(description.hasSuffix("."), "\(description)") }
        #expect(Set(descriptions).count == errors.count)
    }

    @Test("H2 errors name the thread, call, descriptor, policy or address they are about")
    func details() {
        #expect("\(LoopError.noCurrentLoop(thread: "worker 7"))".contains("worker 7"))
        for error in [
            LoopError.wrongThread(operation: "listen"), .cancelled(operation: "listen"), .busy(operation: "listen"),
            .connectionClosed(operation: "listen"),
        ] {
            #expect("\(error)".hasPrefix("listen: "), "\(error)")
        }
        #expect("\(LoopError.notPollable(descriptor: 71))".contains("71"))
        #expect("\(LoopError.ownedByTransport(descriptor: 71))".contains("71"))
        #expect("\(LoopError.invalidAddress("no where"))".contains("\"no where\""))
        #expect("\(LoopError.invalidSignal(71))".contains("71"))
        let unknown = "\(LoopError.unknownPolicy(name: "fast", known: ["b", "a"]))"
        #expect(unknown.contains("\"fast\"") && unknown.contains("a, b"))
        #expect("\(LoopError.forked)".contains("forked"))
        #expect("\(LoopError.boundToAnotherThread)".contains("thread which ran it before"))
    }

    @Test(
        "H2 an error of the system names its code and its call",
        arguments: [(ECONNRESET, "ECONNRESET"), (4000, "4000")])
    func systemErrors(_ errno: Int32, _ name: String) {
        let error = IOError(errno: errno, operation: "read")
        #expect(error.description.contains("read") && error.description.contains(name), "\(error)")
        #expect(LoopError.io(error).description == error.description)
        #expect(IOError(errno: -errno, operation: "read") == error)
    }

    @Test("S9 features are listed by name, in the order of their kind")
    func features() {
        #expect("\(ProactorFeatures([]))" == "")
        #expect("\(ProactorFeatures.bufferRing)" == "buffer ring with multishot receive")
        let two: ProactorFeatures = [.multishotAccept, .singleIssuer]
        #expect("\(two)" == "single issuer, multishot accept")
        guard case .ok(let found) = ProactorLoop.probe() else { return }
        let names = "\(found)".split(separator: ", ")
        #expect(names.count == Set(names).count)
        #expect(names.contains("buffer ring with multishot receive") == found.contains(.bufferRing))
    }

    @Test("N1 a choice reads as the name it was made of")
    func choices() {
        #expect("\(LoopChoice.best), \(LoopChoice.selector), \(LoopChoice.proactor)" == "best, selector, proactor")
        #expect("\(LoopChoice.named("mine"))" == "mine")
    }

    @Test("E14 the loop's clock counts nanoseconds, and never goes back")
    func clock() {
        let clock = LoopClock()
        #expect(clock.minimumResolution == .nanoseconds(1))
        var last = clock.now
        for _ in 0..<1000 {
            let now = clock.now
            #expect(now >= last)
            last = now
        }
    }
}
