// SPDX-License-Identifier: Apache-2.0
//
// PolicyProcessTests.swift: the process's policy. Each test replaces it, and therefore runs in a process of its own.

import Testing

@testable import EventLoops

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Only what the protocol asks for: three functions, and no child watcher. Notes what it is asked.
private final class MinimalPolicy: LoopPolicy {
    private let asked = Lock<[String]>([])
    private let loop = Lock<(any Loop)?>(nil)
    let kind: LoopKind

    init(kind: LoopKind) { self.kind = kind }

    var questions: [String] { asked.withLock { $0 } }

    func currentLoop() throws(LoopError) -> any Loop {
        asked.withLock { $0.append("current") }
        guard let loop = loop.withLock({ $0 }) else { throw .noCurrentLoop(thread: "any") }
        return loop
    }

    func setCurrentLoop(_ loop: (any Loop)?) {
        asked.withLock { $0.append("set") }
        self.loop.withLock { $0 = loop }
    }

    func makeLoop() throws(LoopError) -> any Loop {
        asked.withLock { $0.append("make") }
        switch kind {
        case .selector: return try SelectorLoop(options: .forTests)
        case .proactor: return try ProactorLoop(options: .forTests)
        }
    }
}

@Suite(.timeLimit(.minutes(5)))
struct PolicyProcessTests {
    @Test("S1 inside a run the policy is not asked for the current loop", arguments: LoopKind.available)
    func runningLoopWithoutPolicy(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                let policy = MinimalPolicy(kind: kind)
                LoopPolicies.set(policy)
                let loop = try kind.makeLoop()
                defer { try? loop.close() }
                let current = try loop.run { try Loops.current() }
                #expect(current === loop)
                #expect(policy.questions.isEmpty)
                #expect(throws: LoopError.noCurrentLoop(thread: "any")) { try Loops.current() }
                #expect(policy.questions == ["current"])
            }
        }
    }

    /// asyncio's policies once watched children. Ours have no such part: whatever loop runs, a child's status stays
    /// where it is until its parent asks.
    @Test("S30 no policy watches children: a status is the parent's to take", arguments: LoopKind.available)
    func childrenAreLeftToTheirParent(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                LoopPolicies.set(MinimalPolicy(kind: kind))
                var child: pid_t = 0
                let words = ["sh", "-c", "exit 7"]
                var arguments: [UnsafeMutablePointer<CChar>?] = words.map { (word: String) in strdup(word) }
                arguments.append(nil)
                defer { arguments.forEach { free($0) } }
                try #require(posix_spawn(&child, "/bin/sh", nil, nil, &arguments, environ) == 0)
                // The child has ended, and is not yet waited for, once this says so.
                try Loops.run { [child] _ in
                    var ended = siginfo_t()
                    #expect(waitid(P_PID, id_t(child), &ended, WEXITED | WNOWAIT) == 0)
                    await Task.yield()
                }
                var status: Int32 = 0
                #expect(waitpid(child, &status, 0) == child)
                #expect(status >> 8 == 7)
            }
        }
    }

    @Test("S13 a policy is three functions, to which the shortcuts forward", arguments: LoopKind.available)
    func shortcutsForward(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                let policy = MinimalPolicy(kind: kind)
                LoopPolicies.set(policy)
                let made = try Loops.make()
                defer { try? made.close() }
                #expect(policy.questions == ["make"])
                Loops.setCurrent(made)
                #expect(policy.questions == ["make", "set"])
                #expect(try Loops.current() === made)
                #expect(policy.questions == ["make", "set", "current"])
                Loops.setCurrent(nil)
                #expect(throws: LoopError.self) { try Loops.current() }
                let selection = try Loops.run { loop in
                    let current = try policy.currentLoop()
                    #expect(current === loop)
                    return loop.selection
                }
                #expect(selection.kind == kind)
                #expect(policy.questions.suffix(4) == ["make", "set", "current", "set"])
            }
        }
    }

    @Test("S4 a policy that is replaced is not asked again", arguments: LoopKind.available)
    func replacedAtOnce(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                let first = MinimalPolicy(kind: kind)
                let second = MinimalPolicy(kind: kind)
                LoopPolicies.set(first)
                Loops.setCurrent(nil)
                LoopPolicies.set(second)
                try Loops.make().close()
                _ = try? Loops.current()
                Loops.setCurrent(nil)
                #expect(first.questions == ["set"])
                #expect(second.questions == ["make", "current", "set"])
            }
        }
    }

    @Test("S11 one policy per process, made when first asked for")
    func onePolicy() async {
        await #expect(processExitsWith: .success) {
            try await withThrowingTaskGroup { group in
                for _ in 1...8 { group.addTask { try await onThread { ObjectIdentifier(LoopPolicies.current) } } }
                let seen = try await group.reduce(into: Set()) { $0.insert($1) }
                #expect(seen == [ObjectIdentifier(LoopPolicies.current)])
                #expect(type(of: LoopPolicies.current) == DefaultLoopPolicy.self)
            }
        }
    }

    @Test("S23 there is always a policy, and it is the one that was set")
    func alwaysAPolicy() async {
        await #expect(processExitsWith: .success) {
            let mine = MinimalPolicy(kind: .selector)
            LoopPolicies.set(mine)
            #expect(LoopPolicies.current === mine)
            #expect(LoopPolicies.current === mine)
            LoopPolicies.set(nil)
            #expect(type(of: LoopPolicies.current) == DefaultLoopPolicy.self)
            #expect(LoopPolicies.current === LoopPolicies.current)
        }
    }

    @Test("S24 a policy can be set during a run, which goes on", arguments: LoopKind.available)
    func setDuringRun(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let kind = try #require(LoopKind(rawValue: kind))
                let policy = MinimalPolicy(kind: kind)
                let before = LoopPolicies.current
                let result = try Loops.run(on: kind.choice, options: .forTests) { loop in
                    LoopPolicies.set(policy)
                    try await loop.sleep(for: .milliseconds(1))
                    #expect(Loops.running === loop)
                    #expect(try Loops.current() === loop)
                    return 42
                }
                #expect(result == 42)
                #expect(policy.questions.isEmpty)
                // What the run had set, it has taken back from the policy it had set it in.
                #expect(throws: LoopError.self) { try before.currentLoop() }
            }
        }
    }

    @Test("S25 setting nil makes a new default policy, which knows no loops", arguments: LoopKind.available)
    func setNil(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                let old = LoopPolicies.current
                Loops.setCurrent(loop)
                LoopPolicies.set(nil)
                #expect(LoopPolicies.current !== old)
                #expect(throws: LoopError.self) { try Loops.current() }
                #expect(try old.currentLoop() === loop)
                LoopPolicies.set(old)
                #expect(try Loops.current() === loop)
                // A loop that lives on to the end of the process looks leaked to LeakSanitizer, now and then: its
                // object refers to its weak references by a pointer that is not stored as one.
                Loops.setCurrent(nil)
            }
        }
    }

    @Test("S26 a subclass of the default policy overrides what it likes", arguments: LoopKind.available)
    func subclass(_ kind: LoopKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            try await onThread {
                final class MyLoopPolicy: DefaultLoopPolicy, @unchecked Sendable {
                    var seen: [any Loop] = []
                    override func currentLoop() throws(LoopError) -> any Loop {
                        let loop = try super.currentLoop()
                        seen.append(loop)
                        return loop
                    }
                }
                let loop = try #require(LoopKind(rawValue: kind)).makeLoop()
                defer { try? loop.close() }
                let policy = MyLoopPolicy()
                LoopPolicies.set(policy)
                #expect(throws: LoopError.self) { try Loops.current() }
                Loops.setCurrent(loop)
                #expect(try Loops.current() === loop)
                #expect(policy.seen.count == 1 && policy.seen[0] === loop)
            }
        }
    }

    @Test("N1 a registered policy can be chosen by name, and its options by the run")
    func registered() async {
        await #expect(processExitsWith: .success) {
            try await onThread {
                final class Mine: SelectorLoopPolicy, @unchecked Sendable {}
                LoopPolicies.register(name: "mine") { Mine() }
                #expect(LoopPolicies.registeredNames == ["best", "default", "mine", "proactor", "selector"])
                var options = LoopOptions()
                options.selector = .poll
                try Loops.run(on: "mine", options: options) { loop in
                    #expect(loop.selection.source == .argument && loop.selection.reason.contains("\"mine\""))
                    #expect(loop.backend == "poll")
                }
                let policy = Mine()
                LoopPolicies.set(policy)
                try Loops.run(options: options) { loop in
                    #expect(loop.selection.source == .processDefault && loop.selection.reason.contains("Mine"))
                    #expect(loop.backend == "poll")
                    // A loop that is not the run's has the policy's own options.
                    let other = try Loops.make()
                    defer { try? other.close() }
                    #expect(other.backend == "epoll" && other.selection.source == .processDefault)
                }
                LoopPolicies.set(nil)
                let loop = try policy.makeLoop()
                defer { try? loop.close() }
                #expect(loop.selection.source == .argument)
                // A name that is taken over.
                LoopPolicies.register(name: "mine") { DefaultLoopPolicy() }
                #expect(try LoopPolicies.resolve("mine").policy is Mine == false)
            }
        }
    }
}
