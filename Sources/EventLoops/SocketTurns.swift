// SPDX-License-Identifier: Apache-2.0
//
// SocketTurns.swift: who uses a socket's reading or writing side, who waits for it, and in which order.

import CLoopCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The two sides of a socket: one task at a time uses each.
enum SocketSide: Int {
    case reading, writing
}

/// One side: taken or not, and who comes next.
struct SocketTurns {
    var isTaken = false
    /// What its holder waits in, if it waits.
    var wait: SocketWait?
    /// In order of arrival.
    var queue: [SocketWait] = []
}

/// A wait of a socket, for readiness or for a turn, as its cancel sees it.
final class SocketWait: WaitingPlace, @unchecked Sendable {
    enum Outcome { case none, turn, cancelled, closed }

    private let core: LoopCore
    private let socket: Socket
    private let side: SocketSide
    /// For readiness; `nil` for a turn.
    fileprivate var op: UnsafeMutablePointer<lc_op>?
    fileprivate var word: UInt64 = 0
    /// Under the socket's lock.
    fileprivate var outcome = Outcome.none
    private let cancelAsked = Atomic(false)

    fileprivate init(_ core: LoopCore, _ socket: Socket, _ side: SocketSide) {
        self.core = core
        self.socket = socket
        self.side = side
    }

    /// From the moment its task is cancelled, on whichever thread.
    var isCancelled: Bool { cancelAsked.load(ordering: .acquiring) }

    override func cancelReceive() {
        cancelAsked.store(true, ordering: .releasing)
        core.cancelSoon { self.end() }
    }

    /// Ends the wait for readiness, if it goes on, or leaves the queue. On the loop's thread.
    fileprivate func end() {
        if let op { return lc_op_cancel(core.loop, op) }
        socket.leaveQueue(side, self)
    }

    fileprivate func resume() { Waiter(word: word).resume() }
}

extension Socket {
    /// Takes a side, for one operation. `queued`: behind those who have it or wait for it; else they have to be on their
    /// way out, cancelled.
    nonisolated(nonsending) func take(
        _ side: SocketSide, _ operation: StaticString, queued: Bool = false
    ) async throws(LoopError) {
        try checkUsable(operation)
        let turns = state.withLock { state in
            let free = !state[side].isTaken
            state[side].isTaken = true
            return free ? nil : state[side]
        }
        guard let turns else { return }
        if !queued, turns.wait?.isCancelled != true || turns.queue.contains(where: { !$0.isCancelled }) {
            throw .busy(operation: "\(operation)")
        }
        let wait = SocketWait(core, self, side)
        _ = await wait.waitToReceive { word in
            wait.word = word
            state.withLock { $0[side].queue.append(wait) }
            return 0
        }
        switch state.withLock({ _ in wait.outcome }) {
        case .turn: break
        case .closed: throw closed(operation)
        case .cancelled, .none: throw .cancelled(operation: "\(operation)")
        }
        do throws(LoopError) { try checkUsable(operation) } catch {
            give(side)
            throw error
        }
    }

    /// Gives a side to the next one. Who is last on a socket that was closed meanwhile closes the descriptor.
    func give(_ side: SocketSide) {
        let next = state.withLock { state -> SocketWait? in
            if state[side].queue.isEmpty {
                state[side].isTaken = false
                return nil
            }
            let next = state[side].queue.removeFirst()
            next.outcome = .turn
            return next
        }
        next?.resume()
        if next == nil { closeIfUnused() }
    }

    fileprivate func leaveQueue(_ side: SocketSide, _ wait: SocketWait) {
        let left = state.withLock { state -> Bool in
            guard let place = state[side].queue.firstIndex(where: { $0 === wait }) else { return false }
            state[side].queue.remove(at: place)
            wait.outcome = .cancelled
            return true
        }
        if left { wait.resume() }
    }

    /// Waits until the side is ready. Its holder calls this when the kernel had nothing.
    nonisolated(nonsending) func wait(_ side: SocketSide, _ operation: StaticString) async throws(LoopError) {
        let loop = core.loop
        guard let op = lc_op_make(loop) else { throw .io(IOError(errno: ENOMEM, operation: "\(operation)")) }
        let wait = SocketWait(core, self, side)
        wait.op = op
        let descriptor = state.withLock { state in
            state[side].wait = wait
            return state.descriptor
        }
        let result = await wait.waitToReceive { lc_op_poll(loop, op, descriptor, side == .writing, $0) }
        wait.op = nil
        state.withLock { $0[side].wait = nil }
        let outcome = result < 0 ? result : op.pointee.result
        if !lc_loop_is_closed(loop) { lc_op_release(loop, op) }
        try checkUsable(operation)
        switch outcome {
        case 0...: return
        case -EEXIST: throw .ownedByTransport(descriptor: descriptor)
        default: throw LoopError(core: outcome, operation: "\(operation)")
        }
    }

    /// Ends every wait. On the loop's thread.
    func endWaits() {
        let (waits, queued) = state.withLock { state in
            var waits: [SocketWait] = []
            var queued: [SocketWait] = []
            for side in [SocketSide.reading, .writing] {
                if let wait = state[side].wait { waits.append(wait) }
                for wait in state[side].queue { wait.outcome = .closed }
                queued += state[side].queue
                state[side].queue = []
            }
            return (waits, queued)
        }
        for wait in waits { wait.end() }
        for wait in queued { wait.resume() }
    }
}
