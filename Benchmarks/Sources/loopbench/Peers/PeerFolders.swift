// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// Where the peers' sources are and where they are built to: `Peers` and `.build/peers` of this package.
struct PeerFolders {
    let sources: String
    let built: String

    init(package: String) {
        sources = package + "/Peers"
        built = package + "/.build/peers"
    }

    /// The package this executable was built in.
    /// - Throws: ``BenchmarkFailure`` when it was carried elsewhere.
    static func ofThisPackage() throws -> PeerFolders {
        var path = try Programs.directory()
        while !path.isEmpty {
            if FileManager.default.fileExists(atPath: path + "/Peers/NIO/Package.swift") {
                return PeerFolders(package: path)
            }
            path = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        }
        throw BenchmarkFailure("the folder Peers of the package is not above this executable")
    }

    func log(of folder: String) -> String { "\(built)/\(folder).log" }
}
