// SPDX-License-Identifier: Apache-2.0

/// What one file of callgrind says: instructions of each function itself, and how often each was called.
///
/// Functions are told apart by name and object, because libraries have functions of the same name. The suffix callgrind
/// gives to recursive calls is dropped, so that a function is one row however deep it was.
struct CallgrindProfile: Equatable {
    struct Function: Hashable {
        let name: String
        /// The executable or library, without its folder.
        let object: String
    }

    struct Call: Hashable {
        let caller: Function
        let callee: Function
    }

    /// A Double like every other count, so that differences and shares need no conversions.
    var instructions: [Function: Double] = [:]
    var calls: [Call: Double] = [:]

    var total: Double { instructions.values.reduce(0, +) }

    var callsByCallee: [Function: Double] {
        calls.reduce(into: [:]) { $0[$1.key.callee, default: 0] += $1.value }
    }

    /// The longer life less the shorter one, divided by the echoes that makes.
    static func perEcho(_ whole: CallgrindProfile, less warmUp: CallgrindProfile, echoes: Double) -> CallgrindProfile {
        func difference<Key>(_ whole: [Key: Double], _ part: [Key: Double]) -> [Key: Double] {
            whole.merging(part.mapValues { -$0 }, uniquingKeysWith: +).mapValues { $0 / echoes }
        }
        return CallgrindProfile(
            instructions: difference(whole.instructions, warmUp.instructions),
            calls: difference(whole.calls, warmUp.calls))
    }
}

/// Reads callgrind's file, whose format the Valgrind manual describes: names are given once with a number and by that
/// number from then on; the line after `calls=` is what the call cost inclusively and belongs to the callee.
struct CallgrindParser {
    private typealias Function = CallgrindProfile.Function

    private var profile = CallgrindProfile()
    private var objects: [Substring: String] = [:]
    private var names: [Substring: String] = [:]
    private var function = Function(name: "", object: "")
    private var object = ""
    private var calledObject: String?
    private var calledName = ""
    /// Line numbers before the cost: one column, or two where instructions are listed as well.
    private var positionCount = 1
    private var inclusiveFollows = false

    static func parse(_ text: String) -> CallgrindProfile {
        var parser = CallgrindParser()
        for line in text.split(separator: "\n") { parser.take(line) }
        return parser.profile
    }

    private mutating func take(_ line: Substring) {
        guard let first = line.utf8.first else { return }
        switch first {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "*"):
            return takeCost(line)
        default: break
        }
        if let rest = line.value(of: "fn=") {
            function = Function(name: Self.withoutDepth(Self.name(rest, in: &names)), object: object)
        } else if let rest = line.value(of: "cfn=") {
            calledName = Self.withoutDepth(Self.name(rest, in: &names))
        } else if let rest = line.value(of: "ob=") {
            object = Self.lastComponent(Self.name(rest, in: &objects))
        } else if let rest = line.value(of: "cob=") {
            calledObject = Self.lastComponent(Self.name(rest, in: &objects))
        } else if let rest = line.value(of: "calls=") {
            takeCall(rest)
        } else if let rest = line.value(of: "positions:") {
            positionCount = rest.split(separator: " ").count
        }
    }

    private mutating func takeCost(_ line: Substring) {
        defer { inclusiveFollows = false }
        guard !inclusiveFollows else { return }
        // A cost of zero may be left out.
        let cost = line.split(separator: " ").dropFirst(positionCount).first.flatMap { Double($0) } ?? 0
        profile.instructions[function, default: 0] += cost
    }

    private mutating func takeCall(_ rest: Substring) {
        let callee = Function(name: calledName, object: calledObject ?? object)
        let count = rest.split(separator: " ").first.flatMap { Double($0) } ?? 0
        profile.calls[CallgrindProfile.Call(caller: function, callee: callee), default: 0] += count
        calledObject = nil
        inclusiveFollows = true
    }

    /// `(12) name` for the first time, `(12)` later, or a bare name.
    private static func name(_ text: Substring, in table: inout [Substring: String]) -> String {
        guard text.utf8.first == UInt8(ascii: "("), let end = text.firstIndex(of: ")") else { return String(text) }
        let number = text[...end]
        let rest = text[text.index(after: end)...].drop { $0 == " " }
        if !rest.isEmpty { table[number] = String(rest) }
        return table[number] ?? String(number)
    }

    /// `name'2` is `name`, called by itself.
    private static func withoutDepth(_ name: String) -> String {
        guard let quote = name.lastIndex(of: "'") else { return name }
        let depth = name[name.index(after: quote)...]
        return !depth.isEmpty && depth.allSatisfy(\.isNumber) ? String(name[..<quote]) : name
    }

    private static func lastComponent(_ path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? path
    }
}

extension Substring {
    /// What follows `key`, or nil where the line begins otherwise.
    fileprivate func value(of key: StaticString) -> Substring? {
        let matches = key.withUTF8Buffer { utf8.starts(with: $0) }
        guard matches else { return nil }
        return Substring(utf8.dropFirst(key.utf8CodeUnitCount)).drop { $0 == " " }
    }
}
