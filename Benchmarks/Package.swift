// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let gnuSource = CSetting.define("_GNU_SOURCE")

/// Programs to learn from, one file each. Their tests run them.
let examples = ["echo", "chat", "tcp-proxy", "port-scanner", "supervisor"]

let package = Package(
    name: "Benchmarks",
    products: [
        .executable(name: "loopbench", targets: ["loopbench"]),
        .executable(name: "floor-uring", targets: ["floor-uring"]),
        .executable(name: "floor-libev", targets: ["floor-libev"]),
        .executable(name: "without-io-uring", targets: ["without-io-uring"]),
        // Preloaded into servers by `loopbench counts`, linked into nothing.
        .library(name: "AllocationCounter", type: .dynamic, targets: ["AllocationCounter"]),
    ],
    dependencies: [
        .package(name: "swift-event-loops", path: ".."),
        .package(path: "LoopMeasuring"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", exact: "0.2.0"),
    ],
    targets: [
        .target(name: "FloorSupport", cSettings: [gnuSource]),
        .executableTarget(
            name: "floor-uring",
            dependencies: ["FloorSupport"],
            path: "Sources/FloorUring",
            cSettings: [gnuSource],
            linkerSettings: [.linkedLibrary("uring")]
        ),
        .executableTarget(
            name: "floor-libev",
            dependencies: ["FloorSupport"],
            path: "Sources/FloorLibev",
            cSettings: [gnuSource],
            linkerSettings: [.linkedLibrary("ev")]
        ),
        .executableTarget(name: "without-io-uring", path: "Sources/WithoutIOUring"),
        .target(name: "LoadGenerator", cSettings: [gnuSource]),
        .target(name: "ChildProcess", cSettings: [gnuSource]),
        .target(name: "AllocationCounter", cSettings: [gnuSource]),
        .executableTarget(
            name: "loopbench",
            dependencies: [
                "LoadGenerator",
                "ChildProcess",
                "FloorSupport",
                .product(name: "LoopMeasuring", package: "LoopMeasuring"),
                .product(name: "EventLoops", package: "swift-event-loops"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            // Found beside the executable, whose build put it there.
            resources: [.copy("Report/Renderer")]
        ),
    ]
        + examples.map { name in
            .executableTarget(
                name: name,
                dependencies: [.product(name: "EventLoops", package: "swift-event-loops")],
                path: "Examples/\(name)"
            )
        } + [
            .testTarget(
                name: "BenchmarksTests",
                dependencies: [
                    "loopbench", "floor-uring", "floor-libev", "without-io-uring", "LoadGenerator", "ChildProcess",
                    .product(name: "LoopMeasuring", package: "LoopMeasuring"),
                ] + examples.map { .target(name: $0) },
                // Made-up figures, and the tests of the Python that draws them.
                exclude: ["Report"]
            )
        ],
    swiftLanguageModes: [.v6],
    cLanguageStandard: .c11
)
