// SPDX-License-Identifier: Apache-2.0
//
// PolicyCurrentTests.swift: the current loop and the running one, on threads of this process. None of these tests
// replaces the process's policy.

import EventLoops
import Testing

@Suite(.timeLimit(.minutes(1)))
struct PolicyCurrentTests {
    @Test("S1 current() is the running loop inside a run, else the policy's", arguments: LoopKind.available)
    func currentLoop(_ kind: LoopKind) async throws {
        try await onThread {
            let set = try kind.makeLoop()
            defer { try? set.close() }
            let running = try kind.makeLoop()
            defer { try? running.close() }
            Loops.setCurrent(set)
            #expect(try Loops.current() === set)
            try running.run {
                #expect(try Loops.current() === running)
                try await running.sleep(for: .milliseconds(1))
                #expect(try Loops.current() === running)
            }
            try running.callSoon {
                let current = try Loops.current()
                #expect(current === running)
            }
            try running.runUntilIdle()
            #expect(try Loops.current() === set)
        }
    }

    @Test("S2 setCurrent() inside a run does not change the running loop", arguments: LoopKind.available)
    func setInsideRun(_ kind: LoopKind) async throws {
        try await onThread {
            let other = try kind.makeLoop()
            defer { try? other.close() }
            let running = try kind.makeLoop()
            defer { try? running.close() }
            try running.run {
                Loops.setCurrent(other)
                let current = try Loops.current()
                #expect(Loops.running === running && current === running)
            }
            #expect(try Loops.current() === other)
            #expect(!other.isRunning)
        }
    }

    @Test("S3 make() makes a new loop each time")
    func makeIsFresh() async throws {
        try await onThread {
            let first = try Loops.make()
            defer { try? first.close() }
            let second = try Loops.make()
            defer { try? second.close() }
            #expect(first !== second)
            #expect(!first.isClosed && !first.isRunning && !second.isClosed && !second.isRunning)
        }
    }

    @Test(
        "S10 a proactor loop made and set is current, and not started",
        .enabled(if: LoopKind.hasProactor, "there is no io_uring here"))
    func proactorExample() async throws {
        try await onThread {
            Loops.setCurrent(try ProactorLoop())

            let loop = try Loops.current()
            defer { try? loop.close() }
            #expect(loop is ProactorLoop)
            #expect(Loops.running == nil && !loop.isRunning)
            #expect(try loop.run { 42 } == 42)
        }
    }

    @Test(
        "S14 a task and a callback get the running loop, from the function and from the policy",
        arguments: LoopKind.available)
    func runningLoopFirst(_ kind: LoopKind) async throws {
        try await onThread {
            let policy = DefaultLoopPolicy()
            let set = try kind.makeLoop()
            defer { try? set.close() }
            policy.setCurrentLoop(set)
            Loops.setCurrent(set)
            let running = try kind.makeLoop()
            defer { try? running.close() }
            var seen: [any Loop] = []
            func look() throws {
                seen += [try Loops.current(), try LoopPolicies.current.currentLoop(), try policy.currentLoop()]
            }
            try running.callSoon { try look() }
            try running.runUntilIdle()
            #expect(seen.count == 3)
            seen += try running.run {
                [try Loops.current(), try LoopPolicies.current.currentLoop(), try policy.currentLoop()]
            }
            #expect(seen.count == 6 && seen.allSatisfy { $0 === running })
            #expect(try policy.currentLoop() === set)
        }
    }

    @Test("S15 no loop set: an error, rather than none or a new one")
    func noLoop() async throws {
        try await onThread {
            let policies: [any LoopPolicy] = [LoopPolicies.current, DefaultLoopPolicy(), SelectorLoopPolicy()]
            for policy in policies {
                let error = #expect(throws: LoopError.self) { try policy.currentLoop() }
                #expect(error?.isNoCurrentLoop == true)
            }
            let error = #expect(throws: LoopError.self) { try Loops.current() }
            #expect(error?.isNoCurrentLoop == true)
        }
    }

    @Test("S16 make() does not set the current loop", arguments: LoopKind.available)
    func makeDoesNotSet(_ kind: LoopKind) async throws {
        try await onThread {
            let set = try kind.makeLoop()
            defer { try? set.close() }
            let policies = [
                DefaultLoopPolicy(), SelectorLoopPolicy(), BestLoopPolicy(),
                kind == .proactor ? ProactorLoopPolicy() : SelectorLoopPolicy(),
            ]
            for policy in policies {
                try policy.makeLoop().close()
                #expect(throws: LoopError.self) { try policy.currentLoop() }
                policy.setCurrentLoop(set)
                try policy.makeLoop().close()
                #expect(try policy.currentLoop() === set)
            }
            Loops.setCurrent(set)
            try Loops.make().close()
            #expect(try Loops.current() === set)
        }
    }

    @Test("S17 the context is the thread", arguments: LoopKind.available)
    func contextIsThread(_ kind: LoopKind) async throws {
        try await onThread {
            let mine = try kind.makeLoop()
            defer { try? mine.close() }
            Loops.setCurrent(mine)
            let (before, after) = try onJoinedThread {
                let before = try? Loops.current()
                Loops.setCurrent(try kind.makeLoop())
                return (before, try Loops.current())
            }
            defer { try? after.close() }
            #expect(before == nil)
            #expect(after !== mine)
            #expect(try Loops.current() === mine)
        }
    }

    @Test("S17 each policy has slots of its own", arguments: LoopKind.available)
    func policiesShareNothing(_ kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let one = DefaultLoopPolicy()
            let two = DefaultLoopPolicy()
            one.setCurrentLoop(loop)
            #expect(try one.currentLoop() === loop)
            #expect(throws: LoopError.self) { try two.currentLoop() }
            two.setCurrentLoop(nil)
            #expect(try one.currentLoop() === loop)
        }
    }

    /// Policies come and go, and some get the address of one that went. None may find what another left.
    @Test("S17 a new policy does not find the loops of one that is gone")
    func policiesComeAndGo() async throws {
        try await onThread {
            for _ in 1...100 {
                let policy = DefaultLoopPolicy()
                #expect(throws: LoopError.self) { try policy.currentLoop() }
                let loop = try SelectorLoop(options: .tiny)
                policy.setCurrentLoop(loop)
                try loop.close()
            }
        }
    }

    @Test("S17 a slot keeps its loop until the thread ends, or the policy is gone", arguments: LoopKind.available)
    func slotOwnsLoop(_ kind: LoopKind) async throws {
        try await onThread {
            final class Kept: @unchecked Sendable { weak var loop: (any Loop)? }
            @Sendable func makeAndSet(_ policy: any LoopPolicy) throws -> Kept {
                let loop = try kind.makeLoop()
                policy.setCurrentLoop(loop)
                let kept = Kept()
                kept.loop = loop
                try loop.close()
                return kept
            }

            let byThread = try onJoinedThread { try makeAndSet(LoopPolicies.current) }
            #expect(byThread.loop == nil)

            var policy: DefaultLoopPolicy? = DefaultLoopPolicy()
            let byPolicy = try makeAndSet(policy!)
            #expect(byPolicy.loop != nil)
            policy = nil
            #expect(byPolicy.loop == nil)

            // Gone on another thread: the next use of a slot here clears up.
            final class Holder: @unchecked Sendable { var policy: DefaultLoopPolicy? = DefaultLoopPolicy() }
            let holder = Holder()
            let elsewhere = try makeAndSet(holder.policy!)
            try onJoinedThread { holder.policy = nil }
            Loops.setCurrent(nil)
            #expect(elsewhere.loop == nil)
        }
    }

    @Test("S19 the error names the thread")
    func errorNamesThread() async throws {
        try await onThread {
            let error = try onJoinedThread(named: "nobody's") {
                do { _ = try Loops.current() } catch { return error }
                throw LoopError.closed
            }
            guard case .noCurrentLoop(let thread) = error as? LoopError else {
                Issue.record("noCurrentLoop, not \(error)")
                return
            }
            #expect(thread.hasPrefix("\"nobody's\" ("))
            #expect("\(error)".contains(thread))
        }
    }

    @Test("S20 setting nil takes the loop away", arguments: LoopKind.available)
    func setNil(_ kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            Loops.setCurrent(loop)
            Loops.setCurrent(nil)
            #expect(throws: LoopError.self) { try Loops.current() }
            #expect(!loop.isClosed)
        }
    }

    /// A wrong type does not compile; that a loop of either kind, any loop, and `nil` do is stated here.
    @Test("S21 a loop or nil can be set, and the compiler sees to the rest")
    func typeOfSet() async throws {
        let set: (_ loop: (any Loop)?) -> Void = Loops.setCurrent
        try await onThread {
            let loop = try SelectorLoop(options: .forTests)
            defer { try? loop.close() }
            set(loop)
            #expect(try Loops.current() === loop)
            set(nil)
            #expect(throws: LoopError.self) { try Loops.current() }
        }
    }

    @Test("S22 a closed loop stays current, and its calls fail", arguments: LoopKind.available)
    func closedLoop(_ kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            Loops.setCurrent(loop)
            try loop.close()
            let current = try Loops.current()
            #expect(current === loop && current.isClosed)
            #expect(throws: LoopError.closed) { try current.callSoon {} }
            #expect(throws: LoopError.closed) { try current.callLater(.zero) {} }
            #expect(throws: LoopError.closed) { try current.callSoonThreadsafe {} }
            #expect(throws: LoopError.closed) { try current.run() }
            #expect(throws: LoopError.closed) { try current.run {} }
            try current.close()
        }
    }

    @Test("S27 a loop is the running one for the length of its run, on its thread", arguments: LoopKind.available)
    func runningLoop(_ kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            Loops.setCurrent(loop)
            #expect(Loops.running == nil)
            #expect(throws: LoopError.noRunningLoop) { try Loops.requireRunning() }
            try loop.callSoon {
                let running = try Loops.requireRunning()
                #expect(running === loop && Loops.running === loop)
                let runsElsewhere = try onJoinedThread { Loops.running != nil }
                #expect(!runsElsewhere)
            }
            try loop.runUntilIdle()
            #expect(Loops.running == nil)
            try loop.run {
                #expect(Loops.running === loop)
                try await loop.sleep(for: .milliseconds(1))
                #expect(try Loops.requireRunning() === loop)
            }
            #expect(Loops.running == nil)
            #expect(throws: CancellationError.self) { try loop.run { throw CancellationError() } }
            #expect(Loops.running == nil)
            #expect(throws: LoopError.noRunningLoop) { try Loops.requireRunning() }
        }
    }

    @Test("S29 a loop that runs cannot be run, nor another one on its thread", arguments: LoopKind.available)
    func nesting(_ kind: LoopKind) async throws {
        try await onThread {
            let loop = try kind.makeLoop()
            defer { try? loop.close() }
            let other = try kind.makeLoop()
            defer { try? other.close() }
            Loops.setCurrent(other)
            var reached = 0
            try loop.callSoon {
                #expect(throws: LoopError.alreadyRunning) { try loop.runUntilIdle() }
                #expect(throws: LoopError.alreadyRunning) { try loop.runOnce(.noWait) }
                #expect(throws: LoopError.alreadyRunning) { try loop.run {} }
                #expect(throws: LoopError.anotherLoopRunning) { try other.runOnce(.noWait) }
                #expect(throws: LoopError.anotherLoopRunning) { try other.run {} }
                #expect(throws: LoopError.anotherLoopRunning) { try Loops.run(on: kind.choice) { _ in } }
                #expect(Loops.running === loop)
                let result = try onJoinedThread { try other.run { 42 } }
                #expect(result == 42)
                reached += 1
            }
            try loop.runUntilIdle()
            #expect(reached == 1)
            #expect(try Loops.current() === other)
            #expect(try other.run { 42 } == 42)
        }
    }
}

extension LoopError {
    var isNoCurrentLoop: Bool { if case .noCurrentLoop = self { true } else { false } }
}

extension LoopKind {
    static var hasProactor: Bool { available.contains(.proactor) }
}
