// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import loopbench

struct ReportTests {
    @Test func medianOfEvenAndOddCounts() {
        #expect(Spread([3, 1, 2])?.median == 2)
        #expect(Spread([4, 1, 2, 3])?.median == 2.5)
        #expect(Spread([]) == nil)
    }

    @Test func numbersAreGroupedAndRounded() {
        #expect(Format.fixed(1_234_567.4, 0) == "1,234,567")
        #expect(Format.fixed(0.996, 2) == "1.00")
        #expect(Format.fixed(-1.25, 1) == "-1.3")
        #expect(Format.fixed(nil, 1) == "-")
        #expect(Format.fixed(.nan, 1) == "-")
    }

    @Test func columnsLineUp() {
        var table = Table(header: ["name", "n"])
        table.add(["a", "100"])
        #expect(table.lines() == ["name    n", "a     100"])
    }

    @Test func straceSummaryWithAndWithoutErrors() {
        let summary = """
            % time     seconds  usecs/call     calls    errors syscall
            ------ ----------- ----------- --------- --------- ----------------
             60.00    0.000006           0      1200           recvfrom
             40.00    0.000004           2        12         3 accept4
            ------ ----------- ----------- --------- --------- ----------------
            100.00    0.000010           0      1212         3 total

            """
        #expect(SyscallCount.parse(summary) == ["recvfrom": 1200, "accept4": 12])
    }

    @Test func allocationCounts() {
        #expect(AllocationCount.parse("mallocs=12 frees=3\n") == 12)
        #expect(AllocationCount.parse("") == nil)
    }

    /// Where files went says nothing about the figures, and may say something about somebody's disk.
    @Test func commandIsKeptWithoutFiles() {
        let arguments = ["/somewhere/loopbench", "run", "--json", "a.json", "--rounds", "3", "--report=b", "--quick"]
        #expect(ThisCommand.repeatable(arguments) == "loopbench run --rounds 3 --quick")
    }

    @Test func versions() {
        #expect(Versions.version(inFileName: "/usr/lib/liburing.so.2.3") == "2.3")
        #expect(Versions.present()["libev"]?.contains(".") == true)
        #expect(Versions.present()["liburing"]?.hasPrefix("2.") == true)
    }
}
