// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Glibc

/// What a reader of the figures needs to know about where they come from.
struct Machine: Codable {
    let kernel: String
    let cpu: String
    let cores: Int
    let date: String
    let pinning: CPUPlan
    /// What is not everywhere, or not in every older file.
    var versions: [String: String]?
    var isVirtual: Bool?
    var loadAverage: Double?

    static func present(_ plan: CPUPlan) -> Machine {
        Machine(
            kernel: kernelRelease(),
            cpu: cpuModel(),
            cores: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
            date: Date.now.formatted(.iso8601),
            pinning: plan,
            versions: Versions.present(),
            isVirtual: isVirtual(),
            loadAverage: loadAverage()
        )
    }

    private static func kernelRelease() -> String {
        text(ofFile: "/proc/sys/kernel/osrelease")?.split(separator: "\n").first.map(String.init) ?? "unknown"
    }

    /// x86 calls the line `model name`; arm64 has none.
    private static func cpuModel() -> String {
        let lines = text(ofFile: "/proc/cpuinfo")?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("model name") }
        return line?.split(separator: ":").last.map { String($0.drop { $0 == " " }) } ?? "unknown"
    }

    /// x86 shows a hypervisor as a flag of the CPU; elsewhere we do not know.
    private static func isVirtual() -> Bool? {
        let flags = text(ofFile: "/proc/cpuinfo")?.split(separator: "\n").first { $0.hasPrefix("flags") }
        return flags?.split(separator: " ").contains("hypervisor")
    }

    /// Of the last minute, before anything was measured: how much else was going on.
    private static func loadAverage() -> Double? {
        text(ofFile: "/proc/loadavg")?.split(separator: " ").first.flatMap { Double($0) }
    }
}

/// The whole of a small file, or nil.
func text(ofFile path: String) -> String? {
    (try? Data(contentsOf: URL(filePath: path))).map { String(decoding: $0, as: UTF8.self) }
}
