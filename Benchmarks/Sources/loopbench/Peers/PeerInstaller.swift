// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Glibc

/// Fetches what peers need and builds them, each as far as it goes: one that fails does not stop the others.
struct PeerInstaller {
    let folders: PeerFolders

    /// Always builds, because only the builds themselves know what has changed; a second time costs little.
    func install(_ peers: [Peer]) throws {
        try FileManager.default.createDirectory(atPath: folders.built, withIntermediateDirectories: true)
        fetchPackages(Self.missingPackages(of: peers))
        var done: Set<String> = []
        for peer in peers where done.insert(peer.folder).inserted {
            build(peer.folder)
        }
    }

    /// Each once, in order.
    static func missingPackages(
        of peers: [Peer], hasProgram: (String) -> Bool = { Programs.inPath($0) != nil },
        hasPackage: (String) -> Bool = Self.isInstalled
    ) -> [String] {
        var packages: [String] = []
        for need in peers.flatMap(\.needs) where !packages.contains(need.package) {
            if let program = need.unlessInPath, hasProgram(program) { continue }
            if !hasPackage(need.package) { packages.append(need.package) }
        }
        return packages
    }

    /// As root, or through sudo if it asks for no password; else says what to run.
    private func fetchPackages(_ packages: [String]) {
        guard !packages.isEmpty else { return }
        let command = ["apt-get", "install", "-y", "--no-install-recommends"] + packages
        let line = command.joined(separator: " ")
        guard Programs.inPath("apt-get") != nil else {
            return printToStandardError("There is no apt-get here. In Debian's terms the peers need \(line)")
        }
        var prefix: [String] = []
        if geteuid() != 0 {
            guard Programs.inPath("sudo") != nil, Subprocess.run(["sudo", "-n", "true"], log: nil) == 0 else {
                return printToStandardError("Neither root nor sudo: run  \(line)  and then this again")
            }
            prefix = ["sudo", "-n"]
        }
        printToStandardError("fetching \(packages.joined(separator: " "))")
        let log = folders.log(of: "apt-get")
        // Asked for by root, apt-get never puts a question with this set.
        if Subprocess.run(prefix + ["env", "DEBIAN_FRONTEND=noninteractive"] + command, log: log) != 0 {
            printToStandardError("\(line) failed, see \(log)")
        }
    }

    private func build(_ folder: String) {
        printToStandardError("building \(folder)")
        let log = folders.log(of: folder)
        // A build that fails must not leave an older program to be measured in its place.
        for peer in Contender.peers.compactMap(\.peer) where peer.folder == folder {
            try? FileManager.default.removeItem(atPath: peer.versionPath(in: folders))
        }
        let status = Subprocess.run(["sh", "\(folders.sources)/\(folder)/build.sh", folders.built], log: log)
        if status == 0 { return }
        let reason = text(ofFile: log).flatMap(Peer.lastWords) ?? "status \(status)"
        printToStandardError("  failed: \(reason) (all of it is in \(log))")
    }

    static func isInstalled(_ package: String) -> Bool {
        let query = ["sh", "-c", "dpkg-query -W -f '${Status}' \"$0\" | grep -q 'ok installed'", package]
        return Subprocess.run(query, log: nil) == 0
    }
}
