// SPDX-License-Identifier: Apache-2.0

/// A server that takes part. The raw value is its name in reports and in JSON.
enum Contender: String, CaseIterable, Codable {
    case proactorAsync = "proactor async"
    case proactorCallback = "proactor callback"
    case uringFloor = "floor io_uring"
    case selectorAsync = "selector async"
    case selectorCallback = "selector callback"
    case libevFloor = "floor libev"

    case nioHandlers = "nio handlers"
    case nioAsyncChannel = "nio async channel"
    case nioTakeover = "nio async channel, takeover"
    case libuv = "libuv"
    case asioEpoll = "asio epoll"
    case asioUring = "asio io_uring"
    case tokio = "tokio"
    case go = "go"
    case asyncio = "asyncio"
    case uvloop = "uvloop"

    /// The loops and their floors, which always take part unless told otherwise.
    static let ours: [Contender] = allCases.filter { $0.peer == nil }
    /// Servers of other libraries, which take part when asked for and there.
    static let peers: [Contender] = allCases.filter { $0.peer != nil }

    /// The plain C server on the same kernel interface; a floor's floor is itself.
    var floor: Contender {
        switch self {
        case .proactorAsync, .proactorCallback, .uringFloor, .asioUring: .uringFloor
        default: .libevFloor
        }
    }

    /// nil for the loops and the floors.
    var peer: Peer? {
        switch self {
        case .nioHandlers: .nio(["--api", "handlers"])
        case .nioAsyncChannel: .nio(["--api", "async-channel"])
        case .nioTakeover: .nio(["--api", "async-channel", "--takeover"])
        case .libuv: .libuv
        case .asioEpoll: .asioEpoll
        case .asioUring: .asioUring
        case .tokio: .tokio
        case .go: .go
        case .asyncio: .asyncio
        case .uvloop: .uvloop
        case .proactorAsync, .proactorCallback, .uringFloor, .selectorAsync, .selectorCallback, .libevFloor: nil
        }
    }

    var isFloor: Bool { self == floor }

    /// Program and arguments of a server on a free port.
    ///
    /// Floors are built beside this executable; the loops are served by this executable itself; peers are built by
    /// `loopbench peers --install`.
    func command() throws -> [String] {
        switch self {
        case .proactorAsync: try Self.serve(loop: "proactor", api: "async")
        case .proactorCallback: try Self.serve(loop: "proactor", api: "callback")
        case .selectorAsync: try Self.serve(loop: "selector", api: "async")
        case .selectorCallback: try Self.serve(loop: "selector", api: "callback")
        case .uringFloor: [try Programs.beside("floor-uring"), "--port", "0"]
        case .libevFloor: [try Programs.beside("floor-libev"), "--port", "0"]
        default: try peer!.command(in: .ofThisPackage())
        }
    }

    private static func serve(loop: String, api: String) throws -> [String] {
        [try Programs.beside("loopbench"), "serve", "--loop", loop, "--api", api, "--port", "0", "--threads", "1"]
    }
}
