// SPDX-License-Identifier: Apache-2.0
//
// PolicyProbeTests.swift: what needs a process whose main thread, children or system calls are the test's own. The
// scenarios are in Tests/PolicyProbe.

import EventLoops
import TestSupportC
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

@Suite(.timeLimit(.minutes(5)))
struct PolicyProbeTests {
    @Test("S18 the main thread's loop is made when first asked for, through the overridable functions")
    func autoCreate() async throws { try await expectOK("auto-create") }

    @Test("S20 no loop is made on the main thread once nil was set")
    func setNil() async throws { try await expectOK("set-nil") }

    @Test("S25 setting nil as the policy makes the main thread's loop anew")
    func restoreDefault() async throws { try await expectOK("restore-default") }

    @Test("S31 autoCreate: false makes no loop on the main thread either")
    func autoCreateOff() async throws { try await expectOK("auto-create-off") }

    @Test("S12 run on the main thread leaves no current loop behind", arguments: LoopKind.available)
    func run(_ kind: LoopKind) async throws { try await expectOK("run", kind.rawValue) }

    // MARK: Fork

    @Test("S28 a child does not get its parent's loop, and cannot use it", arguments: LoopKind.available)
    func fork(_ kind: LoopKind) async throws { try await expectOK("fork", kind.rawValue) }

    @Test("S28 no loop runs in a child that a callback made", arguments: LoopKind.available)
    func forkInCallback(_ kind: LoopKind) async throws { try await expectOK("fork-in-callback", kind.rawValue) }

    @Test("S28 the thread of a child is its main thread")
    func forkOnThread() async throws { try await expectOK("fork-on-thread") }

    // MARK: What the kernel refuses

    @Test("S6 LIBEV_FLAGS does not change the selector", arguments: ["1", "2", "4", "0x1000000"])
    func environmentOfLibev(_ flags: String) async throws {
        try await expectOK("selector-backend", "epoll", environment: ["LIBEV_FLAGS=\(flags)"])
    }

    @Test("S6 a selector that cannot be made is passed over", arguments: ["EPERM", "ENOSYS", "EINVAL"])
    func selectorIsTried(_ errno: String) async throws { try await expectOK("selector-without-epoll", errno) }

    @Test(
        "S9, N1 io_uring refused: the strict ways fail, the best falls back and says so once",
        arguments: ["EPERM", "ENOSYS", "EINVAL"])
    func refused(_ errno: String) async throws {
        let output = try await expectOK("refused", errno)
        #expect(output.split(separator: "using a selector loop", omittingEmptySubsequences: false).count == 2)
        #expect(output.contains(errno))
    }

    @Test("N1 a want of memory or descriptors is an error, also of the best", arguments: ["ENOMEM", "EMFILE"])
    func short(_ errno: String) async throws {
        let output = try await expectOK("short", errno)
        #expect(!output.contains("using a selector loop"))
    }

    // MARK: Who has the say

    @Test("N1 LOOP_POLICY chooses, unless an argument or the process's policy does", arguments: LoopKind.available)
    func environment(_ kind: LoopKind) async throws {
        try await expectOK("select", kind.rawValue, "environment", environment: ["LOOP_POLICY=\(kind.rawValue)"])
    }

    @Test(
        "N1 by default, and with an empty LOOP_POLICY, the kernel is asked", arguments: ["LOOP_POLICY", "LOOP_POLICY="])
    func probe(_ entry: String) async throws {
        try await expectOK("select", LoopKind.best.rawValue, "probe", environment: [entry])
    }

    @Test("N1 LOOP_POLICY can name what is the default anyway", arguments: ["best", "default"])
    func environmentNamesDefault(_ name: String) async throws {
        try await expectOK("select", LoopKind.best.rawValue, "environment", environment: ["LOOP_POLICY=\(name)"])
    }

    @Test("N1 LOOP_POLICY that names nothing is an error that says so", arguments: ["no such policy", "Selector"])
    func environmentNamesNothing(_ name: String) async throws {
        try await expectOK("unknown", "LOOP_POLICY=\(name)", environment: ["LOOP_POLICY=\(name)"])
    }

    @Test("N1 a policy that LOOP_POLICY names may call super")
    func environmentNamesSubclass() async throws {
        try await expectOK("super-asks-environment", environment: ["LOOP_POLICY=mine"])
    }

    // MARK: The program

    /// Runs the probe, and expects it to end well. Without `LOOP_POLICY`, unless it is given.
    @discardableResult
    private func expectOK(
        _ arguments: String..., environment: [String] = ["LOOP_POLICY"],
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> String {
        let path = Self.program
        let (status, output) = try await onThread { spawn(path, arguments, environment) }
        #expect(status == 0, "\(output)", sourceLocation: sourceLocation)
        #expect(output.hasSuffix("ok\n"), "\(output)", sourceLocation: sourceLocation)
        return output
    }

    /// The build system puts executables and test bundles into one folder.
    private static let program: String = {
        let capacity = 4096
        let own = String(unsafeUninitializedCapacity: capacity) {
            max(0, readlink("/proc/self/exe", $0.baseAddress!, capacity))
        }
        return own.prefix(through: own.lastIndex(of: "/")!) + "PolicyProbe"
    }()
}

extension LoopKind {
    /// What the probe comes to here.
    fileprivate static var best: LoopKind { hasProactor ? .proactor : .selector }
}

private func spawn(_ path: String, _ arguments: [String], _ environment: [String]) -> (status: Int32, output: String) {
    withStrings([path] + arguments) { arguments in
        withStrings(environment) { environment in
            let capacity = 1 << 16
            return withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { output in
                let status = test_spawn(path, arguments, environment, output.baseAddress!, capacity)
                return (status, String(cString: output.baseAddress!))
            }
        }
    }
}

/// Lends a list of C strings that ends with NULL.
private func withStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result
) -> Result {
    let copies = strings.map { strdup($0) }
    defer { for copy in copies { free(copy) } }
    return body(copies.map { UnsafePointer($0) } + [nil])
}
