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
            cSettings: [.define("_GNU_SOURCE")],
            linkerSettings: [.linkedLibrary("ev"), .linkedLibrary("uring")]
        ),
        .target(
            name: "EventLoops",
            dependencies: ["CLoopCore"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "LoopCoreScenarios",
            dependencies: ["CLoopCore"],
            path: "Tests/LoopCoreScenarios",
            cSettings: [.define("_GNU_SOURCE")]
        ),
        .testTarget(
            name: "LoopCoreTests",
            dependencies: ["CLoopCore", "LoopCoreScenarios"],
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
            dependencies: ["EventLoops", "PolicyProbe", "TestSupportC"],
            swiftSettings: swiftSettings
        ),
    ],
    cLanguageStandard: .c11
)
