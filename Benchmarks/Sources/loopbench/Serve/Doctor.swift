// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import EventLoops
import Glibc

/// `loopbench doctor`: what this machine offers the loops, what it refuses and why, and what `best` makes of it.
struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what this machine offers the loops, and why not.",
        discussion: "Ends with 0 when a loop can be had, whichever it is.")

    func run() throws {
        row("kernel", kernelRelease())
        row("processors", "\(sysconf(Int32(_SC_NPROCESSORS_ONLN)))")
        describeProactor()
        try describeSelector()
        describeLimits()
        try describeChoice()
    }

    private func describeProactor() {
        switch ProactorLoop.probe() {
        case .ok(let features):
            row("io_uring", "available")
            row("  features", "\(features)")
            let all = ProactorFeatures(rawValue: 0x7f)
            let missing = all.subtracting(features)
            if !missing.isEmpty { row("  missing", "\(missing) (a newer kernel has them)") }
        case .denied(let unavailability):
            row("io_uring", "refused: \(unavailability.cause)")
            row("  to use it", unavailability.advice)
        }
        let path = "/proc/sys/kernel/io_uring_disabled"
        row("  sysctl", "kernel.io_uring_disabled = \(firstLine(of: path) ?? "absent")")
    }

    private func describeSelector() throws {
        for (name, selector) in [
            ("most efficient", LoopOptions.Selector.mostEfficient), ("epoll", .epoll), ("poll", .poll),
            ("select", .select),
        ] {
            var options = LoopOptions()
            options.selector = selector
            do {
                let loop = try SelectorLoop(options: options)
                row("selector, \(name)", loop.backend)
                try loop.close()
            } catch {
                row("selector, \(name)", "refused: \(error)")
            }
        }
    }

    private func describeLimits() {
        row("descriptors", limit(RLIMIT_NOFILE, unit: "") + "; a connection takes one (ulimit -n)")
        row("locked memory", limit(__RLIMIT_MEMLOCK, unit: " bytes") + "; rings are charged to it per user (ulimit -l)")
    }

    private func describeChoice() throws {
        do {
            let resolution = try LoopPolicies.resolve()
            let loop = try resolution.policy.makeLoop()
            defer { try? loop.close() }
            row("best", "\(loop.selection)")
        } catch {
            row("best", "none: \(error)")
            throw ExitCode.failure
        }
    }

    // MARK: Asking the system

    private func row(_ name: String, _ value: String) {
        let gap = String(repeating: " ", count: max(1, 26 - name.count))
        print(name + gap + value)
    }

    private func kernelRelease() -> String {
        var name = utsname()
        guard uname(&name) == 0 else { return "unknown" }
        return withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private func limit(_ resource: __rlimit_resource, unit: String) -> String {
        var value = rlimit()
        guard getrlimit(__rlimit_resource_t(resource.rawValue), &value) == 0 else { return "unknown" }
        func text(_ number: rlim_t) -> String { number == rlim_t.max ? "unlimited" : "\(number)\(unit)" }
        return "\(text(value.rlim_cur)) now, \(text(value.rlim_max)) at most"
    }

    private func firstLine(of path: String) -> String? {
        guard let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count).prefix { $0 != 10 }, as: UTF8.self)
    }
}
