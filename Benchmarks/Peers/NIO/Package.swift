// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
//
// SwiftNIO as a peer of the benchmarks. A package of its own, so that building loopbench does not build NIO.

import PackageDescription

let package = Package(
    name: "NIOPeers",
    products: [
        .executable(name: "nio-echo", targets: ["nio-echo"]),
        .executable(name: "nio-loop", targets: ["nio-loop"]),
    ],
    dependencies: [
        .package(path: "../../LoopMeasuring"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        .executableTarget(
            name: "nio-echo",
            dependencies: [
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]
        ),
        .executableTarget(
            name: "nio-loop",
            dependencies: [
                .product(name: "LoopMeasuring", package: "LoopMeasuring"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]
        ),
    ],
    swiftLanguageModes: [.v6]
)
