// SPDX-License-Identifier: Apache-2.0
//
// WorkerSupport.swift: what the tests of workers and of resolving share.

import Synchronization
import Testing

@testable import EventLoops

/// How many. Any thread.
final class Count: Sendable {
    private let number = Atomic(0)
    func add() { number.add(1, ordering: .relaxed) }
    var value: Int { number.load(ordering: .relaxed) }
}

extension WorkerPool {
    /// Keeps all threads busy until `latch` opens.
    func occupy(by loop: any Loop, until latch: Latch) async throws -> [Task<Bool, any Error>] {
        let started = Count()
        let tasks = (0..<maximumThreads).map { _ in
            loop.spawn {
                try await loop.offload(on: self) {
                    started.add()
                    return latch.wait()
                }
            }
        }
        try await until("all threads are busy", on: loop) { started.value == maximumThreads }
        return tasks
    }
}

extension Loop {
    /// The error that the task ends with, if it is one of ours.
    func error<Success: Sendable>(of task: Task<Success, any Error>) async -> LoopError? {
        await thrown { _ = try await task.value }
    }
}
