// SPDX-License-Identifier: Apache-2.0

/// Numbers as the tables print them. A missing value is a dash.
enum Format {
    static func fixed(_ value: Double?, _ digits: Int) -> String {
        guard let value, value.isFinite else { return "-" }
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let scaled = (value * scale).rounded()
        let whole = Int(scaled.magnitude)
        let sign = scaled < 0 ? "-" : ""
        guard digits > 0 else { return sign + grouped(whole) }
        let fraction = String(whole % Int(scale))
        let zeros = String(repeating: "0", count: digits - fraction.count)
        return sign + grouped(whole / Int(scale)) + "." + zeros + fraction
    }

    static func microseconds(_ nanoseconds: UInt64?) -> String {
        guard let nanoseconds else { return "-" }
        let microseconds = Double(nanoseconds) / 1e3
        return fixed(microseconds, microseconds < 100 ? 1 : 0)
    }

    static func percent(_ share: Double?) -> String {
        fixed(share.map { $0 * 100 }, 0) + (share == nil ? "" : "%")
    }

    /// `0.97 (0.95..0.99)`
    static func ratio(_ spread: Spread?) -> String {
        guard let spread else { return "-" }
        return "\(fixed(spread.median, 2)) (\(fixed(spread.min, 2))..\(fixed(spread.max, 2)))"
    }

    private static func grouped(_ value: Int) -> String {
        var digits = String(value)
        var groups: [Substring] = []
        while digits.count > 3 {
            groups.insert(digits.suffix(3), at: 0)
            digits = String(digits.dropLast(3))
        }
        return ([Substring(digits)] + groups).joined(separator: ",")
    }
}
