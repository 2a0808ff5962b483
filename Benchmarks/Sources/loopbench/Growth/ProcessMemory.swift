// SPDX-License-Identifier: Apache-2.0

import Glibc

/// What /proc says about a process.
enum ProcessMemory {
    /// `Anonymous:` of smaps_rollup, which is counted page by page when asked; RssAnon of status may lag.
    static func anonymousBytes(of process: Int32) -> Int? {
        text(ofFile: "/proc/\(process)/smaps_rollup").flatMap { kibibytes("Anonymous:", in: $0) }.map { $0 << 10 }
    }

    static func descriptors(of process: Int32) -> Int {
        guard let folder = opendir("/proc/\(process)/fd") else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        return count - 2
    }

    /// The number after `name` at the beginning of a line.
    static func kibibytes(_ name: String, in table: String) -> Int? {
        let line = table.split(separator: "\n").first { $0.hasPrefix(name) }
        return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
    }
}

/// Kernel memory of the whole machine that grows with sockets: slabs, and the buffers the network stack accounts for
/// apart from them. Whatever else runs is in it too.
enum KernelMemory {
    static func socketBytes() -> Int? {
        guard let memory = text(ofFile: "/proc/meminfo"), let slab = ProcessMemory.kibibytes("Slab:", in: memory),
            let sockets = text(ofFile: "/proc/net/sockstat")
        else { return nil }
        return (slab << 10) + tcpPages(sockets) * Int(getpagesize())
    }

    /// `TCP: inuse 5 orphan 0 tw 0 alloc 8 mem 2`
    static func tcpPages(_ table: String) -> Int {
        let line = table.split(separator: "\n").first { $0.hasPrefix("TCP:") }
        return line?.split(separator: " ").last.flatMap { Int($0) } ?? 0
    }
}
