// SPDX-License-Identifier: Apache-2.0
//
// FuzzerTests.swift: the corpus of the fuzzers, and variations of it, through what libFuzzer calls: so that the fuzzers
// keep working, and what they have found stays found. `make fuzzers` looks for more.

import Dispatch
import Foundation
import Fuzzers
import Testing

/// One of the functions that take any bytes.
enum Fuzzer: String, CaseIterable, CustomTestStringConvertible {
    case operations
    case options
    case address

    var testDescription: String { rawValue }

    var function: @Sendable (UnsafePointer<UInt8>?, Int, UnsafeMutablePointer<fuzz_outcome>?) -> Int32 {
        switch self {
        case .operations: { fuzz_operations($0, $1, $2) }
        case .options: { fuzz_options($0, $1, $2) }
        case .address: { fuzz_address($0, $1, $2) }
        }
    }

    /// What the file system lists in any order, in one.
    func corpus() throws -> [[UInt8]] {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../Fuzzers/corpus/\(rawValue)")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return try files.sorted { $0.lastPathComponent < $1.lastPathComponent }.map {
            [UInt8](try Data(contentsOf: $0))
        }
    }

    /// Waits on a thread that the concurrency runtime does not need.
    func play(_ inputs: [[UInt8]]) async -> [(failure: String, digest: UInt64)] {
        let function = function
        return await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                continuation.resume(
                    returning: inputs.map { input in
                        var outcome = fuzz_outcome()
                        let result = function(input, input.count, &outcome)
                        let text = withUnsafeBytes(of: outcome.failure) {
                            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                        }
                        return (result == 0 ? "" : "\(result): \(text)", outcome.digest)
                    })
            }
        }
    }
}

/// SplitMix64: the same variations in every run.
private struct Variations: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = (state ^ state >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }

    /// A few bytes changed, taken away, added, or taken from another.
    mutating func vary(_ input: [UInt8], with other: [UInt8]) -> [UInt8] {
        var varied = input
        for _ in 0...Int.random(in: 0..<4, using: &self) {
            let at = Int.random(in: 0...varied.count, using: &self)
            let end = min(at + Int.random(in: 1...8, using: &self), varied.count)
            switch Int.random(in: 0..<4, using: &self) {
            case 0: varied.removeSubrange(at..<end)
            case 1:
                varied.insert(contentsOf: (0..<4).map { _ in [0, 1, 0x7f, 0xff].randomElement(using: &self)! }, at: at)
            case 2: varied.replaceSubrange(at..., with: other.dropFirst(at))
            default: for index in at..<end { varied[index] = UInt8.random(in: 0...255, using: &self) }
            }
        }
        return varied
    }
}

@Suite("Fuzzers", .serialized)
struct FuzzerTests {
    @Test("F80 any bytes as operations, options and addresses: no rule is broken", arguments: Fuzzer.allCases)
    func corpus(_ fuzzer: Fuzzer) async throws {
        let corpus = try fuzzer.corpus()
        try #require(corpus.count >= 10)
        var variations = Variations(state: 80)
        var inputs: [[UInt8]] = [[]] + corpus
        for index in 0..<200 {
            inputs.append(
                variations.vary(corpus[index % corpus.count], with: corpus.randomElement(using: &variations)!))
        }
        for (input, outcome) in zip(inputs, await fuzzer.play(inputs)) {
            #expect(outcome.failure.isEmpty, "\(outcome.failure); input \(Data(input).base64EncodedString())")
        }
    }

    @Test("F80 what bytes do does not depend on what was played before", arguments: Fuzzer.allCases)
    func independence(_ fuzzer: Fuzzer) async throws {
        let corpus = try fuzzer.corpus()
        let there = await fuzzer.play(corpus).map(\.digest)
        let back = await fuzzer.play(corpus.reversed()).map(\.digest)
        #expect(there == back.reversed())
        #expect(Set(there).count > 1)
    }
}
