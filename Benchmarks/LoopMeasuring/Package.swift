// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
//
// What `loopbench loop` measures, the same code for every loop: a library of its own, because loopbench and SwiftNIO's
// peer are packages of their own and both need it.

import PackageDescription

let package = Package(
    name: "LoopMeasuring",
    products: [.library(name: "LoopMeasuring", targets: ["LoopMeasuring"])],
    dependencies: [.package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")],
    targets: [
        .target(
            name: "LoopMeasuring",
            dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")]
        )
    ],
    swiftLanguageModes: [.v6]
)
