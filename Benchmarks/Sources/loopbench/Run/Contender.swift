// SPDX-License-Identifier: Apache-2.0

/// A server that takes part. The raw value is its name in reports and in JSON.
enum Contender: String, CaseIterable, Codable {
    case proactorAsync = "proactor async"
    case proactorCallback = "proactor callback"
    case uringFloor = "floor io_uring"
    case selectorAsync = "selector async"
    case selectorCallback = "selector callback"
    case libevFloor = "floor libev"

    /// The plain C server on the same kernel interface; a floor's floor is itself.
    var floor: Contender {
        switch self {
        case .proactorAsync, .proactorCallback, .uringFloor: .uringFloor
        case .selectorAsync, .selectorCallback, .libevFloor: .libevFloor
        }
    }

    var isFloor: Bool { self == floor }

    /// Program and arguments of a server on a free port.
    ///
    /// Floors are built beside this executable; the loops are served by this executable itself.
    func command() throws -> [String] {
        switch self {
        case .proactorAsync: try Self.serve(loop: "proactor", api: "async")
        case .proactorCallback: try Self.serve(loop: "proactor", api: "callback")
        case .selectorAsync: try Self.serve(loop: "selector", api: "async")
        case .selectorCallback: try Self.serve(loop: "selector", api: "callback")
        case .uringFloor: [try Programs.beside("floor-uring"), "--port", "0"]
        case .libevFloor: [try Programs.beside("floor-libev"), "--port", "0"]
        }
    }

    private static func serve(loop: String, api: String) throws -> [String] {
        [try Programs.beside("loopbench"), "serve", "--loop", loop, "--api", api, "--port", "0", "--threads", "1"]
    }
}
