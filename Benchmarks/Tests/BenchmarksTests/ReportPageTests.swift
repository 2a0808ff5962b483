// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import loopbench

/// A page from made-up figures of all kinds: it is whole, asks for nothing from outside, and fits its window.
@Suite(.timeLimit(.minutes(5)))
struct ReportPageTests {
    private static let plots = [
        "rate-against-floor", "proactor-against-peers", "throughput", "throughput-by-load", "cpu-per-request", "p99",
        "system-calls", "mallocs-per-request", "instructions-per-request", "growth-echo", "growth-memory-bars",
        "timers",
        "calls", "tasks",
    ]
    private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent().path + "/Report"

    @Test func pageIsWhole() throws {
        guard let folder = try draw() else { return }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let page = try String(contentsOfFile: folder + "/index.html", encoding: .utf8)
        for plot in Self.plots {
            #expect(page.contains("<figure id=\"\(plot)\">"))
            for kind in ["png", "svg"] {
                let size = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(plot).\(kind)")[.size] as? Int
                #expect(size ?? 0 > 2_000, "\(plot).\(kind)")
            }
        }
        // A wide and a narrow form of each.
        #expect(page.components(separatedBy: "<svg").count - 1 == 2 * page.components(separatedBy: "<figure").count - 2)
        for word in ["made up by hand for a test", "made-up failure: it did not start", "loopbench run --json FILE"] {
            #expect(page.contains(word), "\(word)")
        }
        #expect(!page.contains("http:") && !page.contains("https:") && !page.contains("src="))
        #expect(page.components(separatedBy: "url(").dropFirst().allSatisfy { $0.hasPrefix("#") })
    }

    /// What a report keeps can be drawn again, and is what it was drawn from.
    @Test func resultsComeBack() throws {
        guard let folder = try draw(), let renderer = try Renderer() else { return }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let first = try String(contentsOfFile: folder + "/index.html", encoding: .utf8)
        try renderer.draw([folder + "/results.json"], into: folder)
        #expect(try String(contentsOfFile: folder + "/index.html", encoding: .utf8) == first)
    }

    @Test func filesOfOthersAreRefused() throws {
        guard let renderer = try Renderer() else { return print("SKIPPED: no Python with matplotlib") }
        let folder = NSTemporaryDirectory() + "report-\(UUID().uuidString)"
        #expect(throws: (any Error).self) { try renderer.draw([Self.fixtures + "/test_renderer.py"], into: folder) }
        #expect(!FileManager.default.fileExists(atPath: folder + "/index.html"))
    }

    @Test func rendererOwnTests() throws {
        guard let renderer = try Renderer() else { return print("SKIPPED: no Python with matplotlib") }
        let path = "PYTHONPATH=" + URL(filePath: renderer.script).deletingLastPathComponent().path
        let tests = Self.fixtures + "/test_renderer.py"
        #expect(try Command.run(["/usr/bin/env", path, renderer.python, "-B", tests]) == 0)
    }

    /// Chromium, told to count what the page's own policy forbids, and to look for anything wider than the window. One
    /// of each is planted once, to see that it is noticed.
    @Test(arguments: [(1280, ""), (520, ""), (520, "<img src=plot.png><p style='min-width: 900px'>too wide")])
    func browserShowsIt(_ width: Int, _ planted: String) throws {
        guard let chromium = Programs.inPath("chromium"), let timeout = Programs.inPath("timeout") else {
            return print("SKIPPED: no chromium (apt-get install chromium)")
        }
        guard let folder = try draw() else { return }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let page = folder + "/index.html"
        let looking = """
            <script>
            let refused = 0
            addEventListener("securitypolicyviolation", () => { refused += 1 })
            addEventListener("load", () => {
              const wide = [...document.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().width > 200)
              const figures = document.querySelectorAll("figure").length
              const over = document.documentElement.scrollWidth - innerWidth
              document.title = `refused ${refused}, over ${over > 0}, unseen ${figures - wide.length}`
            })
            </script>
            """
        let text = try String(contentsOfFile: page, encoding: .utf8)
        let allowing = text.replacingOccurrences(
            of: "default-src 'none';", with: "default-src 'none'; script-src 'unsafe-inline';")
        #expect(allowing != text, "the page itself forbids requests")
        try allowing.replacingOccurrences(of: "</head>", with: looking + "</head>")
            .replacingOccurrences(of: "</main>", with: planted + "</main>")
            .write(toFile: page, atomically: true, encoding: .utf8)
        let dom = try Command.output(of: [
            timeout, "60", chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=\(width),3000",
            "--user-data-dir=\(folder)/chromium", "--virtual-time-budget=5000", "--dump-dom", "file://\(page)",
        ])
        let title = dom.firstRange(of: "<title>").map { dom[$0.upperBound...].prefix { $0 != "<" } }
        #expect(title == (planted.isEmpty ? "refused 0, over false, unseen 0" : "refused 1, over true, unseen 0"))
    }

    /// nil, and said so, where there is nothing to draw with.
    private func draw() throws -> String? {
        guard let renderer = try Renderer() else {
            print("SKIPPED: no Python with matplotlib")
            return nil
        }
        let folder = NSTemporaryDirectory() + "report-\(UUID().uuidString)"
        try renderer.draw([Self.fixtures + "/made-up.json"], into: folder)
        return folder
    }
}
