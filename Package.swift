// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let swiftSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableExperimentalFeature("Lifetimes"),
]

let package = Package(
    name: "swift-event-loops",
    products: [
        .library(name: "EventLoops", targets: ["EventLoops"])
    ],
    targets: [
        .systemLibrary(
            name: "CLibev",
            path: "CSystemShims/CLibev",
            providers: [.apt(["libev-dev"]), .yum(["libev-devel"]), .brew(["libev"])]
        ),
        .systemLibrary(
            name: "CLiburing",
            path: "CSystemShims/CLiburing",
            pkgConfig: "liburing",
            providers: [.apt(["liburing-dev"]), .yum(["liburing-devel"])]
        ),
        .target(
            name: "CLoopCore",
            dependencies: ["CLibev", "CLiburing"],
            path: "CSystemShims/CLoopCore",
            exclude: ["model"],
            cSettings: [.define("_GNU_SOURCE")],
            linkerSettings: [.linkedLibrary("ev"), .linkedLibrary("uring")]
        ),
        .target(
            name: "EventLoops",
            dependencies: ["CLoopCore"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "CSimulator",
            dependencies: ["CLiburing"],
            path: "Tests/CSimulator",
            cSettings: [.define("_GNU_SOURCE")]
        ),
        .target(
            name: "LoopCoreScenarios",
            dependencies: ["CLoopCore", "CSimulator"],
            path: "Tests/LoopCoreScenarios",
            cSettings: [.define("_GNU_SOURCE")]
        ),
        // Weak references to the simulator: the model links with it and without it.
        .target(
            name: "LoopModel",
            dependencies: ["CLoopCore"],
            path: "Tests/LoopModel",
            cSettings: [.define("_GNU_SOURCE"), .headerSearchPath("../CSimulator/include")]
        ),
        .executableTarget(
            name: "LoopFuzz",
            dependencies: ["CLoopCore", "LoopModel"],
            path: "Tests/LoopFuzz",
            cSettings: [.define("_GNU_SOURCE")]
        ),
        // For the suite. libFuzzer's own builds are .ci/fuzzers.sh's.
        .target(
            name: "Fuzzers",
            dependencies: ["CLoopCore", "CSimulator", "LoopModel"],
            path: "Tests/Fuzzers",
            exclude: ["corpus"],
            cSettings: [.define("_GNU_SOURCE")]
        ),
        .testTarget(
            name: "LoopCoreTests",
            dependencies: ["CLoopCore", "CSimulator", "Fuzzers", "LoopCoreScenarios", "LoopModel"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "TestSupportC",
            path: "Tests/TestSupportC",
            cSettings: [.define("_GNU_SOURCE")]
        ),
        .executableTarget(
            name: "PolicyProbe",
            dependencies: ["EventLoops", "TestSupportC"],
            path: "Tests/PolicyProbe",
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "EventLoopsTests",
            dependencies: ["CSimulator", "EventLoops", "PolicyProbe", "TestSupportC"],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "Conformance",
            path: "Tests/Conformance",
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "ConformanceTests",
            dependencies: ["Conformance"],
            swiftSettings: swiftSettings
        ),
    ],
    cLanguageStandard: .c11
)
