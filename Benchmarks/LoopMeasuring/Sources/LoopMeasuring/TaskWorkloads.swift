// SPDX-License-Identifier: Apache-2.0
//
// TaskWorkloads.swift: tasks: made and awaited, woken by each other, calling an actor.

/// Where tasks run, as the measurements see it.
public struct TaskHost: Sendable {
    public typealias Body = nonisolated(nonsending) @Sendable () async -> Void

    /// Starts an empty task. Called from a task of this host.
    let spawnEmpty: @Sendable () -> Task<Void, any Error>
    /// Starts a task that stays here. Called from anywhere.
    let spawn: @Sendable (@escaping Body) -> Task<Void, any Error>
    /// Calls an actor of this host.
    let callActor: Body

    public init(
        spawnEmpty: @escaping @Sendable () -> Task<Void, any Error>,
        spawn: @escaping @Sendable (@escaping Body) -> Task<Void, any Error>,
        callActor: @escaping Body
    ) {
        self.spawnEmpty = spawnEmpty
        self.spawn = spawn
        self.callActor = callActor
    }
}

/// An actor on an executor of one's own.
public actor ExecutorActor {
    private let executor: any SerialExecutor
    private var count = 0

    public init(executor: any SerialExecutor) { self.executor = executor }

    nonisolated public var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    public func bump() { count += 1 }

    /// Runs `body` here. Touches the actor first: an optimised build leaves out the switch to an actor whose method does
    /// nothing before it calls a `nonisolated(nonsending)` function, which then runs wherever the caller was (6.3.1).
    public func run(_ body: TaskHost.Body) async {
        count += 1
        await body()
    }

    /// The task is isolated to this actor, and so starts on its executor.
    public func spawnEmpty() -> Task<Void, any Error> { Task { self.count += 1 } }
}

/// An actor as most are.
public actor DefaultActor {
    private var count = 0
    public init() {}
    public func bump() { count += 1 }
}

/// Runs the asked-for measurement as a task of `host`, while this thread waits.
public func measureTasks(_ host: TaskHost, _ request: Request) -> Figures {
    let handed = Handed<Figures>()
    let task = host.spawn {
        switch request.subject {
        case .spawn: handed.set(await measureSpawn(host, request))
        case .awaitResume: handed.set(await measureAwaitResume(host, request))
        case .actorCall: handed.set(await measureActorCall(host, request))
        default: handed.set(Figures(failure: "not a measurement of tasks"))
        }
    }
    return withExtendedLifetime(task) { handed.wait() }
}

/// Goes round and round for as long as the request allows, and measures what comes after the first fifth.
private struct Rounds {
    private let start = monotonicNanoseconds()
    private let budget: UInt64
    private let operations: Int
    private var meter = Meter()
    private var isMeasuring = false

    init(_ request: Request, operations: Int) {
        budget = request.nanoseconds
        self.operations = operations
    }

    /// Whether there is time for another round. The one before, if any, ends here.
    mutating func next() -> Bool {
        let elapsed = monotonicNanoseconds() - start
        if isMeasuring { meter.stop(operations: operations) }
        guard !isMeasuring || elapsed < budget else { return false }
        isMeasuring = elapsed >= budget / 5
        if isMeasuring { meter.start() }
        return true
    }

    var figures: Figures { meter.figures }
}

nonisolated(nonsending) private func measureSpawn(_ host: TaskHost, _ request: Request) async -> Figures {
    let batch = 1000
    var tasks: [Task<Void, any Error>] = []
    tasks.reserveCapacity(batch)
    var rounds = Rounds(request, operations: batch)
    while rounds.next() {
        for _ in 0..<batch { tasks.append(host.spawnEmpty()) }
        for task in tasks { _ = try? await task.value }
        tasks.removeAll(keepingCapacity: true)
    }
    return rounds.figures
}

nonisolated(nonsending) private func measureAwaitResume(_ host: TaskHost, _ request: Request) async -> Figures {
    let batch = 1000
    var rounds = Rounds(request, operations: batch)
    while rounds.next() {
        let pair = PingPong(turns: batch)
        await pair.play(startingOther: { host.spawn { await pair.play() } })
    }
    return rounds.figures
}

nonisolated(nonsending) private func measureActorCall(_ host: TaskHost, _ request: Request) async -> Figures {
    let batch = 1000
    var rounds = Rounds(request, operations: batch)
    while rounds.next() {
        for _ in 0..<batch { await host.callActor() }
    }
    return rounds.figures
}

/// Two tasks that wake each other in turn. Only the one that was woken last touches it, so it needs no lock.
private final class PingPong: @unchecked Sendable {
    private var waiting: UnsafeContinuation<Void, Never>?
    private var turns: Int

    init(turns: Int) { self.turns = turns }

    func play(startingOther: () -> Task<Void, any Error>, isolation: isolated (any Actor)? = #isolation) async {
        var other: Task<Void, any Error>?
        await withUnsafeContinuation {
            waiting = $0
            other = startingOther()
        }
        await play()
        _ = try? await other?.value
    }

    func play(isolation: isolated (any Actor)? = #isolation) async {
        while turns > 0 {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
                turns -= 1
                let other = waiting.take()
                waiting = continuation
                other?.resume()
            }
        }
        waiting.take()?.resume()
    }
}
