// SPDX-License-Identifier: Apache-2.0
//
// Scenarios.swift: each of them is one process, with nothing set before.

import EventLoops
import TestSupportC

/// Counts what the default policy asks of those who override it.
private final class CountingPolicy: DefaultLoopPolicy, @unchecked Sendable {
    var made: [any Loop] = []
    var set: [(any Loop)?] = []

    override func makeLoop() throws(LoopError) -> any Loop {
        made.append(try super.makeLoop())
        return made.last!
    }

    override func setCurrentLoop(_ loop: (any Loop)?) {
        set.append(loop)
        super.setCurrentLoop(loop)
    }
}

// MARK: The main thread

func autoCreate() throws {
    let policy = CountingPolicy()
    LoopPolicies.set(policy)
    try onThread {
        try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "no loop is made on a second thread")
        try check(isNoCurrentLoop(thrown { _ = try policy.currentLoop() }), "nor when the policy is asked")
    }
    try check(policy.made.isEmpty && policy.set.isEmpty, "nothing was made or set for a second thread")

    let loop = try Loops.current()
    defer { try? loop.close() }
    try check(policy.made.count == 1 && policy.made[0] === loop, "the loop came from the overridden makeLoop")
    try check(policy.set.count == 1 && policy.set[0] === loop, "and went through the overridden setCurrentLoop")
    try check(try Loops.current() === loop && policy.currentLoop() === loop, "it is the same from then on")
    try check(policy.made.count == 1 && policy.set.count == 1, "and nothing is made or set again")
    try check(!loop.isRunning && Loops.running == nil, "it was not started")
    try onThread {
        try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "the main thread's loop is not a second one's")
    }
}

func setNil() throws {
    let policy = CountingPolicy()
    LoopPolicies.set(policy)
    Loops.setCurrent(nil)
    for _ in 1...2 {
        try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "no loop is made once nil was set")
    }
    try check(policy.made.isEmpty, "none is made at all")
    let loop = try Loops.make()
    defer { try? loop.close() }
    Loops.setCurrent(loop)
    try check(try Loops.current() === loop, "a loop can be set again")
    Loops.setCurrent(nil)
    try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "and taken away again")
}

func autoCreateOff() throws {
    LoopPolicies.set(DefaultLoopPolicy(autoCreate: false))
    let error = thrown { _ = try Loops.current() }
    try check(isNoCurrentLoop(error), "no loop is made on the main thread")
    try check(error!.description.contains("\"PolicyProbe\""), "the error names the thread: \(error!)")
    let loop = try Loops.make()
    defer { try? loop.close() }
    Loops.setCurrent(loop)
    try check(try Loops.current() === loop, "a loop that was set is found")
}

func restoreDefault() throws {
    let oldPolicy = LoopPolicies.current
    let oldLoop = try Loops.current()
    defer { try? oldLoop.close() }
    LoopPolicies.set(nil)
    try check(LoopPolicies.current !== oldPolicy, "a new default policy is made")
    try check(LoopPolicies.current is DefaultLoopPolicy, "it is the default one")
    let newLoop = try Loops.current()
    defer { try? newLoop.close() }
    try check(newLoop !== oldLoop, "it does not know the loops of the old one, and makes one again")
    Loops.setCurrent(nil)
    try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "it makes none once nil was set")
    LoopPolicies.set(nil)
    try Loops.current().close()
}

func run(_ kind: LoopKind) throws {
    let kept = try Loops.run(on: kind == .selector ? .selector : .proactor) { loop in
        try check(Loops.running === loop, "the loop runs")
        try check(try LoopPolicies.current.currentLoop() === loop, "and is current")
        return loop
    }
    try check(kept.isClosed, "it is closed afterwards")
    try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "and no loop is current, nor made")
    try Loops.run { loop in try check(Loops.running === loop, "another one can be run") }
}

// MARK: Fork

private func make(_ kind: LoopKind) throws -> any Loop {
    switch kind {
    case .selector: try SelectorLoop()
    case .proactor: try ProactorLoop()
    }
}

private func checkForked(_ loop: any Loop) throws {
    try check(thrown { try loop.run() } == .forked, "run of the parent's loop throws .forked")
    try check(thrown { try loop.run {} } == .forked, "so does run(until:)")
    try check(thrown { try loop.callSoon {} } == .forked, "so does callSoon")
    try check(thrown { try loop.callLater(.zero) {} } == .forked, "so does callLater")
    try check(thrown { try loop.callSoonThreadsafe {} } == .forked, "so does callSoonThreadsafe")
}

private func checkWorks(_ loop: any Loop) throws {
    let result = try loop.run {
        try await loop.sleep(for: .milliseconds(1))
        return 42
    }
    try check(result == 42, "the loop works")
}

func fork(_ kind: LoopKind) throws {
    let loop = try make(kind)
    Loops.setCurrent(loop)
    try checkWorks(loop)
    try inChild {
        try checkForked(loop)
        let own = try Loops.current()
        try check(own !== loop, "the child does not get the parent's loop")
        try check(try Loops.current() === own, "it keeps its own")
        try checkWorks(own)
        try own.close()
        try loop.close()
    }
    try check(try Loops.current() === loop, "the parent keeps its loop")
    try checkWorks(loop)
    try checkWaitOutlivesChild(loop)

    Loops.setCurrent(nil)
    try inChild { try Loops.current().close() }
    try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "what was set stays set in the parent")
    try checkWorks(loop)
    try loop.close()
}

/// What the child closes must not take the parent's waits out of the kernel.
private func checkWaitOutlivesChild(_ loop: any Loop) throws {
    let (reader, writer) = makePipe()
    let waiting = loop.spawn { try await loop.readable(reader) }
    try loop.runOnce(.noWait)
    try loop.runOnce(.noWait)
    try check(loop.statistics.armedOperations + loop.statistics.operationsInKernel > 0, "the wait is in the kernel")
    try inChild { try loop.close() }
    writeByte(writer)
    try loop.run { try await waiting.value }
    closePipe(reader, writer)
}

func forkInCallback(_ kind: LoopKind) throws {
    let loop = try make(kind)
    Loops.setCurrent(loop)
    var outcome: (any Error)?
    try loop.callSoon {
        do {
            try inChild {
                try check(Loops.running == nil, "no loop runs in the child")
                try check(thrown { _ = try Loops.requireRunning() } == .noRunningLoop, "and requireRunning says so")
                try check(!loop.isOnLoop, "the child is not on the loop")
                try checkForked(loop)
                let own = try Loops.current()
                try check(own !== loop, "the child does not get the parent's loop")
                try checkWorks(own)
                try own.close()
                try loop.close()
            }
            try check(Loops.running === loop, "the loop goes on in the parent")
        } catch { outcome = error }
    }
    try loop.runUntilIdle()
    if let outcome { throw outcome }
    try checkWorks(loop)
    try loop.close()
}

func forkOnThread() throws {
    try onThread {
        try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "this is not the main thread")
        try inChild {
            let own = try Loops.current()
            try checkWorks(own)
            try own.close()
        }
        try check(isNoCurrentLoop(thrown { _ = try Loops.current() }), "it still is not")
    }
}

// MARK: What the kernel refuses

func refused(_ errno: Int32) throws {
    try check(test_deny_io_uring_setup(errno) == 0, "io_uring_setup can be refused")
    guard case .denied(let unavailability) = ProactorLoop.probe() else { throw Failure("the probe is denied") }
    try check(unavailability.errno == errno, "for the reason given")
    try check(!unavailability.cause.isEmpty && !unavailability.advice.isEmpty, "with cause and advice")
    try check(
        thrown { _ = try ProactorLoop() } == .unavailable(unavailability), "the initialiser says what the probe says")
    try check(thrown { _ = try ProactorLoopPolicy().makeLoop() } == .unavailable(unavailability), "so does the policy")
    try check(thrown { try Loops.run(on: .proactor) { _ in } } == .unavailable(unavailability), "and Loops.run")

    for _ in 1...2 {
        let loop = try Loops.make()
        defer { try? loop.close() }
        try check(loop.selection.kind == .selector && loop.backend != "io_uring", "the best loop is a selector loop")
        try check(loop.selection.source == .probe, "as the kernel had the last word")
        try check(loop.selection.reason.contains(unavailability.description), "for: \(loop.selection.reason)")
        try checkWorks(loop)
    }
    let selection = try Loops.run(on: .best) { loop in loop.selection }
    try check(selection.kind == .selector && selection.source == .argument, "so it is when asked for: \(selection)")
}

func short(_ errno: Int32) throws {
    try check(test_deny_io_uring_setup(errno) == 0, "io_uring_setup can fail")
    let policies: [any LoopPolicy] = [LoopPolicies.current, BestLoopPolicy(), ProactorLoopPolicy()]
    for policy in policies {
        let error = thrown { _ = try policy.makeLoop() }
        guard case .io(let ioError) = error else { throw Failure("\(type(of: policy)): .io, not \(error as Any)") }
        try check(ioError.errno == errno, "\(type(of: policy)): the errno is kept: \(ioError)")
    }
}

func selectorBackend(_ name: String) throws {
    let loop = try SelectorLoop()
    try check(loop.backend == name, "the selector is \(name), not \(loop.backend)")
    try checkWorks(loop)
    try loop.close()
}

func selectorWithoutEpoll(_ errno: Int32) throws {
    try check(test_deny_epoll_create(errno) == 0, "epoll_create can be refused")
    try selectorBackend("poll")
}

// MARK: Who has the say

func select(kind: LoopKind, source: String) throws {
    let resolution = try LoopPolicies.resolve()
    try check(
        resolution.source.rawValue == source, "resolve: \(source), not \(resolution.source): \(resolution.reason)")
    let loops = [try Loops.make(), try resolution.policy.makeLoop(), try Loops.current()]
    let selections = try loops.map(\.selection) + [Loops.run { loop in loop.selection }]
    for loop in loops { try loop.close() }
    for selection in selections {
        try check(
            selection.kind == kind && selection.source.rawValue == source, "\(kind) by \(source), not \(selection)")
        try check(selection.reason.contains(resolution.reason), "\(resolution.reason) in: \(selection.reason)")
    }

    // The argument has the say over the variable, as has the process's policy.
    let other: LoopKind = kind == .selector ? .proactor : .selector
    if case .denied = ProactorLoop.probe() { return }
    let asked = try Loops.run(on: .named(other.rawValue)) { loop in loop.selection }
    try check(asked.kind == other && asked.source == .argument, "\(other) by argument, not \(asked)")
    LoopPolicies.set(other == .selector ? SelectorLoopPolicy() : ProactorLoopPolicy())
    let preset = try Loops.run { loop in loop.selection }
    try check(preset.kind == other && preset.source == .processDefault, "\(other) by process default, not \(preset)")
    let both = try Loops.run(on: .named(kind.rawValue)) { loop in loop.selection }
    try check(both.kind == kind && both.source == .argument, "\(kind) by argument, not \(both)")

    // The variable is read on each call.
    LoopPolicies.set(nil)
    setEnvironment("LOOP_POLICY", other.rawValue)
    let changed = try Loops.run { loop in loop.selection }
    try check(changed.kind == other && changed.source == .environment, "\(other) by environment, not \(changed)")
}

/// `LOOP_POLICY=counting` must not send a subclass that calls `super` round in circles, nor one that wraps another.
func superAsksEnvironment() throws {
    final class WrappingPolicy: LoopPolicy {
        let inner = DefaultLoopPolicy()
        func currentLoop() throws(LoopError) -> any Loop { try inner.currentLoop() }
        func setCurrentLoop(_ loop: (any Loop)?) { inner.setCurrentLoop(loop) }
        func makeLoop() throws(LoopError) -> any Loop { try inner.makeLoop() }
    }
    let counting = CountingPolicy()
    LoopPolicies.register(name: "mine") { counting }
    let loop = try Loops.make()
    try check(counting.made.count == 1 && counting.made[0] === loop, "the policy of that name made the loop, once")
    try check(loop.selection.source == .environment, "by environment, not \(loop.selection)")
    try loop.close()
    LoopPolicies.register(name: "mine") { WrappingPolicy() }
    let wrapped = try Loops.make()
    try check(wrapped.selection.source == .environment, "by environment, not \(wrapped.selection)")
    try wrapped.close()
}

func unknown(_ name: String) throws {
    let error = LoopError.unknownPolicy(name: name, known: LoopPolicies.registeredNames)
    try check(thrown { _ = try LoopPolicies.resolve() } == error, "resolve throws \(error)")
    try check(thrown { _ = try Loops.make() } == error, "so does make")
    try check(thrown { _ = try Loops.current() } == error, "so does current")
    try check(thrown { try Loops.run { _ in } } == error, "so does run")
    try check(error.description.contains("LOOP_POLICY"), "the text says where the name came from: \(error)")
    try check(thrown { try Loops.run(on: .selector) { _ in } } == nil, "an argument makes up for it")
}
