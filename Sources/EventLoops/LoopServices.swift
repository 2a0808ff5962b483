// SPDX-License-Identifier: Apache-2.0
//
// LoopServices.swift: what a loop has beside its engine: who blocks for it, who looks names up, who waits for them.

import CLoopCore

final class LoopServices: @unchecked Sendable {
    private struct Choices {
        /// Made by the loop when first needed, and ended with it.
        var own: WorkerPool?
        /// Set by the loop's user, who also ends it.
        var given: WorkerPool?
        var resolver: any Resolver = SystemResolver()
        var isClosed = false
    }

    private let choices = Lock(Choices())
    /// Tasks that wait for other threads. On the loop's thread.
    var waits: [ObjectIdentifier: ThreadWait] = [:]

    /// Any thread.
    var workers: WorkerPool {
        get {
            choices.withLock { choices in
                if let pool = choices.given ?? choices.own { return pool }
                let pool = WorkerPool()
                if choices.isClosed { pool.threads.shutDown() }
                choices.own = pool
                return pool
            }
        }
        set {
            // What the old one held may call back in: it goes once the lock is open.
            let old = choices.withLock { choices in
                defer { (choices.given, choices.own) = (newValue, nil) }
                return [choices.given, choices.own]
            }
            withExtendedLifetime(old) {}
        }
    }

    /// Any thread.
    var resolver: any Resolver {
        get { choices.withLock { $0.resolver } }
        set {
            let old = choices.withLock { choices in
                defer { choices.resolver = newValue }
                return choices.resolver
            }
            withExtendedLifetime(old) {}
        }
    }

    /// The loop is closed. Nobody waits for a thread that works.
    func close() {
        let own = choices.withLock { choices in
            choices.isClosed = true
            return choices.own
        }
        own?.threads.shutDown()
        while let wait = waits.first?.value { wait.end(.closed) }
    }
}

extension Loop {
    /// The pool that ``offload(on:_:)`` and ``resolve(_:port:)`` use. Any thread.
    ///
    /// A loop makes a pool of its own when it first needs one: so no loop waits for another's work, and its close ends
    /// its threads. A pool that is set here may serve several loops, and is not shut down by their close. The pool that
    /// is replaced finishes what it has. Source: asyncio's `set_default_executor`, whose pool ends with the loop.
    public var workers: WorkerPool {
        get { core.services.workers }
        set { core.services.workers = newValue }
    }

    /// Who looks names up for ``resolve(_:port:)`` and ``names(of:)``. ``SystemResolver``, if nothing else is set. Any
    /// thread.
    public var resolver: any Resolver {
        get { core.services.resolver }
        set { core.services.resolver = newValue }
    }
}
