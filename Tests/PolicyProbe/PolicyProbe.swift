// SPDX-License-Identifier: Apache-2.0
//
// PolicyProbe.swift: what tests of policies do in a process of its own: on its real main thread, across a fork, and
// where the kernel refuses system calls. Runs the scenario it is asked for, and prints "ok" or what was wrong.

import EventLoops
import TestSupportC

@main
struct PolicyProbe {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            guard let name = arguments.first, let scenario = scenarios[name] else {
                throw Failure("Which scenario? One of: \(scenarios.keys.sorted().joined(separator: ", "))")
            }
            try scenario(Array(arguments.dropFirst()))
            print("ok")
        } catch {
            print("FAILED: \(error)")
            exitProcess(1)
        }
    }

    private static let scenarios: [String: @Sendable ([String]) throws -> Void] = [
        "auto-create": { _ in try autoCreate() },
        "auto-create-off": { _ in try autoCreateOff() },
        "fork": { try fork(makeKind($0)) },
        "fork-in-callback": { try forkInCallback(makeKind($0)) },
        "fork-on-thread": { _ in try forkOnThread() },
        "refused": { try refused(makeErrno($0)) },
        "restore-default": { _ in try restoreDefault() },
        "run": { try run(makeKind($0)) },
        "select": { try select(kind: makeKind($0), source: $0[1]) },
        "selector-backend": { try selectorBackend($0[0]) },
        "selector-without-epoll": { try selectorWithoutEpoll(makeErrno($0)) },
        "set-nil": { _ in try setNil() },
        "short": { try short(makeErrno($0)) },
        "super-asks-environment": { _ in try superAsksEnvironment() },
        "unknown": { try unknown($0[0]) },
    ]
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

func check(_ condition: Bool, _ expectation: String) throws {
    if !condition { throw Failure(expectation) }
}

/// The error that `body` throws, if it is one of ours.
func thrown(_ body: () throws -> Void) -> LoopError? {
    do { try body() } catch { return error as? LoopError }
    return nil
}

func isNoCurrentLoop(_ error: LoopError?) -> Bool {
    if case .noCurrentLoop = error { true } else { false }
}

/// Runs `body` in a forked child.
func inChild(_ body: @escaping () throws -> Void) throws {
    let result = call(body) { test_fork_run($0, $1) }
    try check(result == 0, "the child fared well, not: \(result)")
}

/// Runs `body` on a second thread.
func onThread(_ body: @escaping () throws -> Void) throws {
    let result = call(body) { test_thread_run("second", $0, $1) }
    try check(result == 0, "the thread fared well, not: \(result)")
}

private func call(
    _ body: @escaping () throws -> Void,
    _ runner: (@escaping @convention(c) (UnsafeMutableRawPointer?) -> Int32, UnsafeMutableRawPointer) -> Int32
) -> Int32 {
    let work = Work(body)
    return withExtendedLifetime(work) {
        runner(
            { Unmanaged<Work>.fromOpaque($0!).takeUnretainedValue().run() }, Unmanaged.passUnretained(work).toOpaque())
    }
}

private final class Work {
    private let body: () throws -> Void
    init(_ body: @escaping () throws -> Void) { self.body = body }

    func run() -> Int32 {
        do { try body() } catch {
            writeLine("FAILED, in a child or second thread: \(error)")
            return 1
        }
        return 0
    }
}
