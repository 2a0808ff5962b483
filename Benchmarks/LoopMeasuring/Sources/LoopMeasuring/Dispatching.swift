// SPDX-License-Identifier: Apache-2.0
//
// Dispatching.swift: from the request to the measurement, where a loop is all that it needs.

/// Measures what concerns callbacks, timers and waiting. Tasks are another matter: ``measureTasks(_:_:)``.
@inlinable
public func measureCalls<Loop: MeasuredLoop>(_ loop: Loop, _ request: Request) -> Figures {
    switch request.subject {
    case .timerPair, .timerRearm, .timerSchedule, .timerCancel: measureTimers(loop, request)
    case .timerFire: measureFiring(loop, request)
    case .callSoon: measureCallSoon(loop, request)
    case .callThreadsafe: measureCallThreadsafe(loop, request)
    case .callLatency: measureCallLatency(loop, request)
    case .sleep: measureWaits(loop, request)
    case .idle: measureIdleness(loop, request)
    case .spawn, .awaitResume, .actorCall: Figures(failure: "not a measurement of calls")
    }
}
