// SPDX-License-Identifier: Apache-2.0

/// A server of another library: which program it is and what it needs to be built.
///
/// Several peers may come from one folder, built together by its `build.sh`, which leaves each program and a
/// `.version` file beside it in `PeerFolders.built`.
struct Peer: Equatable {
    let folder: String
    let program: String
    var arguments: [String] = []
    /// Debian's packages, less what is there already.
    let needs: [Need]

    /// A Debian package; or a program, from wherever it came, that makes the package unnecessary.
    struct Need: Equatable {
        let package: String
        var unlessInPath: String?
    }

    private static let pkgConfig = Need(package: "pkg-config", unlessInPath: "pkg-config")
    private static let cxx = Need(package: "g++", unlessInPath: "c++")
    private static let python = Need(package: "python3", unlessInPath: "python3")

    static func nio(_ arguments: [String]) -> Peer {
        Peer(folder: "NIO", program: "nio-echo", arguments: arguments, needs: [])
    }

    static let libuv = Peer(
        folder: "Libuv", program: "libuv-echo",
        needs: [
            Need(package: "gcc", unlessInPath: "cc"), pkgConfig, Need(package: "libuv1-dev"),
        ])
    static let asioEpoll = Peer(
        folder: "Asio", program: "asio-epoll-echo", needs: [cxx, Need(package: "libasio-dev")])
    static let asioUring = Peer(
        folder: "Asio", program: "asio-uring-echo",
        needs: [cxx, pkgConfig, Need(package: "libasio-dev"), Need(package: "liburing-dev")])
    static let tokio = Peer(
        folder: "Tokio", program: "tokio-echo",
        needs: [Need(package: "cargo", unlessInPath: "cargo"), Need(package: "librust-tokio-dev")])
    static let go = Peer(
        folder: "Go", program: "go-echo", needs: [Need(package: "golang-go", unlessInPath: "go")])
    static let asyncio = Peer(folder: "Python", program: "asyncio-echo", needs: [python])
    static let uvloop = Peer(
        folder: "Python", program: "uvloop-echo",
        needs: [python, Need(package: "python3-pip", unlessInPath: "pip3")])

    /// Where it would be; whether it is there is another question.
    func path(in folders: PeerFolders) -> String { "\(folders.built)/\(program)" }

    func versionPath(in folders: PeerFolders) -> String { path(in: folders) + ".version" }

    func command(in folders: PeerFolders) throws -> [String] {
        if let absence = absence(in: folders) { throw BenchmarkFailure(absence) }
        return [path(in: folders)] + arguments + ["--port", "0"]
    }

    /// Why it cannot take part, or nil.
    func absence(in folders: PeerFolders) -> String? {
        if version(in: folders) != nil { return nil }
        let failure = text(ofFile: folders.log(of: folder)).flatMap(Self.lastWords)
        return failure.map { "could not be built: \($0)" } ?? "not built: loopbench peers --install"
    }

    /// What it was built from, nil when it was not.
    func version(in folders: PeerFolders) -> String? {
        guard Programs.isExecutable(path(in: folders)) else { return nil }
        return text(ofFile: versionPath(in: folders)).map { String($0.prefix { !$0.isNewline }) }
    }

    /// The line of a failed build that says why: the first that a compiler calls an error, else the last.
    static func lastWords(_ log: String) -> String? {
        let lines = log.split(whereSeparator: \.isNewline)
        return (lines.first { $0.contains("error: ") } ?? lines.last).map { String($0.prefix(160)) }
    }
}
