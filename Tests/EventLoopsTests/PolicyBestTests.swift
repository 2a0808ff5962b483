// SPDX-License-Identifier: Apache-2.0
//
// PolicyBestTests.swift: when the best loop is another than the first one tried.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

struct PolicyBestTests {
    @Test("N1 best falls back where io_uring is refused, and says why", arguments: [ENOSYS, EPERM, EINVAL])
    func fallsBack(_ errno: Int32) throws {
        let unavailability = LoopUnavailability(errno: errno)
        let policy = BestLoopPolicy(
            makeProactor: { (_, _) throws(LoopError) in throw .unavailable(unavailability) },
            makeSelector: { (options, selection) throws(LoopError) in
                try SelectorLoop(options: options, selection: selection)
            })
        let loop = try policy.makeLoop()
        defer { try? loop.close() }
        #expect(loop.selection.kind == .selector && loop.selection.source == .argument)
        #expect(loop.selection.reason.contains(unavailability.cause))
        #expect(loop.selection.reason.contains(unavailability.advice))
    }

    @Test("N1 best does not hide a want of memory or descriptors", arguments: [ENOMEM, EMFILE, ENFILE, EAGAIN])
    func doesNotFallBack(_ errno: Int32) {
        let errors: [LoopError] = [
            .io(IOError(errno: errno, operation: "make a proactor loop")),
            .unavailable(LoopUnavailability(errno: errno)),
        ]
        for error in errors {
            let policy = BestLoopPolicy(
                makeProactor: { (_, _) throws(LoopError) in throw error },
                makeSelector: { (_, _) throws(LoopError) in
                    Issue.record("a selector loop was asked for")
                    throw .closed
                })
            #expect(throws: error) { try policy.makeLoop() }
        }
    }

    @Test("N1 best takes a proactor loop where it can be had", arguments: LoopKind.available.filter { $0 == .proactor })
    func takesProactor(_ kind: LoopKind) throws {
        let loop = try BestLoopPolicy(options: .forTests).makeLoop()
        defer { try? loop.close() }
        #expect(loop is ProactorLoop && loop.selection.kind == .proactor)
        #expect(loop.selection.reason.contains("io_uring is available"))
    }

    @Test("N1 a policy's options reach its loops, and those of a run come before them")
    func optionsReachLoops() async throws {
        var options = LoopOptions.forTests
        options.selector = .select
        let seen = Lock<[LoopOptions]>([])
        let refused = BestLoopPolicy(
            options: options,
            makeProactor: { (options, _) throws(LoopError) in
                seen.withLock { $0.append(options) }
                throw .closed
            }, makeSelector: { (_, _) throws(LoopError) in throw .closed })
        #expect(throws: LoopError.closed) { try refused.makeLoop() }
        #expect(seen.withLock { $0 } == [options])

        let loop = try SelectorLoopPolicy(options: options).makeLoop()
        defer { try? loop.close() }
        #expect(loop.backend == "select")
    }

    @Test(
        "S26 the policies of a kind make that kind, and are default policies otherwise", arguments: LoopKind.available)
    func policiesOfKinds(_ kind: LoopKind) async throws {
        try await onThread {
            let policy: DefaultLoopPolicy = kind == .selector ? SelectorLoopPolicy() : ProactorLoopPolicy()
            let loop = try policy.makeLoop()
            defer { try? loop.close() }
            #expect(loop.selection.kind == kind && loop.selection.source == .argument)
            #expect(loop.selection.reason == "\(type(of: policy)) was asked")
            policy.setCurrentLoop(loop)
            #expect(try policy.currentLoop() === loop)
        }
    }
}
