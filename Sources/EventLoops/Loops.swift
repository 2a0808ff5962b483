// SPDX-License-Identifier: Apache-2.0
//
// Loops.swift: shortcuts: the current loop, the running one, a new one, and a loop for the length of a program.

import CLoopCore

/// The functions most programs need. They ask the process's policy, anew on each call.
public enum Loops {
    // MARK: A loop for the length of a program

    /// Makes a loop, runs `body` as a task of it, and closes it. Most programs need nothing else.
    ///
    ///     try Loops.run { loop in print("hello from", loop.backend) }
    ///
    /// During the run the loop is also the current one of this thread; afterwards none is set. Blocks the thread it is
    /// called on. Source: asyncio's `run`. Not yet: cancelling the tasks that `body` left behind and waiting for their
    /// end; they are told that the loop is closed instead. Worth doing when tasks are counted.
    /// - Parameters:
    ///   - choice: The policy that makes the loop; else the one that ``LoopPolicies/resolve(_:)`` finds.
    ///   - options: What the loop is made with, rather than the options of the policy. Policies that do not derive from
    ///     those of this library do not see them.
    /// - Returns: What `body` returned.
    /// - Throws: What `body` threw; `.anotherLoopRunning`, `.unknownPolicy`; what making and running a loop can throw.
    @discardableResult
    public static func run<Success>(
        on choice: LoopChoice? = nil, options: LoopOptions? = nil,
        _ body: sending @escaping (any Loop) async throws -> Success
    ) throws -> Success {
        guard running == nil else { throw LoopError.anotherLoopRunning }
        let loop = try make(choice, options)
        // The same one before and after, even if `body` sets another.
        let policy = LoopPolicies.current
        policy.setCurrentLoop(loop)
        defer {
            policy.setCurrentLoop(nil)
            // It does not run any more, so it can be closed.
            try? loop.close()
        }
        return try loop.run { try await body(loop) }
    }

    private static func make(_ choice: LoopChoice?, _ options: LoopOptions?) throws(LoopError) -> any Loop {
        let policy = try LoopPolicies.resolve(choice?.name).policy
        let slots = ThreadSlots.current
        let outer = slots.options
        slots.options = options
        defer { slots.options = outer }
        return try policy.makeLoop()
    }

    // MARK: The current loop

    /// The loop that runs on this thread, for which no policy is asked; else the policy's current one. Any thread.
    /// Source: asyncio's `get_event_loop`.
    /// - Throws: `.noCurrentLoop`, where the policy has none and makes none; what making a loop can throw.
    public static func current() throws(LoopError) -> any Loop {
        if let running { return running }
        return try LoopPolicies.current.currentLoop()
    }

    /// Sets the policy's current loop; `nil`: there is none. Does not change which loop is running. Any thread.
    /// Source: asyncio's `set_event_loop`.
    public static func setCurrent(_ loop: (any Loop)?) { LoopPolicies.current.setCurrentLoop(loop) }

    /// Makes a loop by the policy's rules. It is not set as the current one. Close it when done. Any thread. Source:
    /// asyncio's `new_event_loop`.
    /// - Throws: `.unavailable`, `.unknownPolicy`; `.io` when descriptors or memory are short.
    public static func make() throws(LoopError) -> any Loop { try LoopPolicies.current.makeLoop() }

    // MARK: The running loop

    /// The loop that runs on this thread, if any. Set for the length of a run. Any thread.
    public static var running: (any Loop)? { LoopCore.current?.facadeLoop }

    /// The loop that runs on this thread. Any thread. Source: asyncio's `get_running_loop`.
    /// - Throws: `.noRunningLoop`.
    public static func requireRunning() throws(LoopError) -> any Loop {
        guard let loop = running else { throw .noRunningLoop }
        return loop
    }
}

/// Names a policy: `.best`, `.selector`, `.proactor`, or one that was registered.
public struct LoopChoice: Sendable, Hashable, ExpressibleByStringLiteral, CustomStringConvertible {
    /// The name, as ``LoopPolicies/registeredNames`` lists it.
    public let name: String

    public init(stringLiteral name: String) { self.name = name }

    /// A loop over completions; where the kernel refuses those, over readiness.
    public static var best: LoopChoice { "best" }
    /// A loop over readiness, always.
    public static var selector: LoopChoice { "selector" }
    /// A loop over completions, or an error.
    public static var proactor: LoopChoice { "proactor" }
    /// The policy that ``LoopPolicies/register(name:_:)`` made known by `name`.
    public static func named(_ name: String) -> LoopChoice { LoopChoice(stringLiteral: name) }

    public var description: String { name }
}
