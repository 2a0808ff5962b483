// SPDX-License-Identifier: Apache-2.0
//
// Callback.swift: a closure in the two words that a record of the core keeps for its owner.

/// What a call, a timer or a post runs.
///
/// A struct, because a closure that is stored by itself in generic memory is wrapped first, which costs an allocation.
struct Callback {
    let run: () throws -> Void

    /// - Parameter place: The record's two words, which hold nothing.
    @inline(__always)
    static func put(_ run: consuming @escaping () throws -> Void, _ place: UnsafeMutableRawPointer) {
        assert(MemoryLayout<Callback>.size == 2 * MemoryLayout<UnsafeRawPointer>.size)
        place.assumingMemoryBound(to: Callback.self).initialize(to: Callback(run: run))
    }

    @inline(__always)
    static func take(_ place: UnsafeMutableRawPointer) -> Callback {
        place.assumingMemoryBound(to: Callback.self).move()
    }

    /// Frees the closure of a record that is off the loop's lists: what it captured may call back in.
    @inline(__always)
    static func drop(_ place: UnsafeMutableRawPointer) {
        let callback = take(place)
        withExtendedLifetime(callback) {}
    }
}
