#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# coverage.sh: runs the suite with line coverage, lists each line of the core and of the library that nothing ran, and
# fails below the floors. What those lines are, and why: docs/testing.md.
#
# The profiles of child processes count: SwiftPM names them by process, LLVM_PROFILE_FILE is inherited, and what lies
# beside the suite's own profile is merged with it. A child killed by a signal leaves none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

core_floor=95    # per cent of the lines of CSystemShims/CLoopCore
library_floor=90 # of Sources/EventLoops

# The tools have to be of the compiler's own version, so those beside swift come first.
tool() {
    local beside
    beside="$(dirname "$(readlink -f "$(command -v swift)")")/$1"
    if [[ -x "$beside" ]]; then printf '%s' "$beside"; else command -v "$1"; fi
}
llvm_cov="$(tool llvm-cov)" && llvm_profdata="$(tool llvm-profdata)" || {
    printf '==> coverage: no llvm-cov and llvm-profdata beside swift; they are part of the toolchains from swift.org\n' >&2
    exit 1
}

scratch=.build-coverage
# --enable-code-coverage is for Swift alone; C gets it straight from clang. Counters are shared by threads.
options=(
    --scratch-path "$scratch" --enable-code-coverage
    -Xcc -fprofile-instr-generate -Xcc -fcoverage-mapping -Xcc -fprofile-update=atomic
)
bin="$(swift build "${options[@]}" --show-bin-path)"
rm -rf "$bin/codecov"
.ci/test.sh "coverage: the suite, with line coverage" "${options[@]}"

work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT
find "$bin/codecov" -name '*.profraw' -size +0 >"$work_dir/profiles"
"$llvm_profdata" merge --failure-mode=warn --sparse --input-files="$work_dir/profiles" -o "$work_dir/merged"

# Not the tests' own code: only the two trees below count. And not lc_swift.h, whose functions only Swift compiles:
# its importer puts no counters into C.
"$llvm_cov" export --format=lcov --instr-profile="$work_dir/merged" --ignore-filename-regex='/lc_swift\.h$' \
    "$(printf '%s\n' "$bin"/*PackageTests.xctest)" --object "$bin/PolicyProbe" \
    "$PWD/CSystemShims/CLoopCore" "$PWD/Sources/EventLoops" |
    swift demangle --simplified >"$work_dir/lcov"

printf '==> coverage: lines that nothing ran\n'
awk -v root="$PWD/" -v core_floor="$core_floor" -v library_floor="$library_floor" '
    function flush_range() {
        if (first) {
            where = first == last ? first : first "-" last
            printf "    %s:%s  %s\n", path, where, in_function
        }
        first = 0
    }
    # The function a line is in: the last that begins at or before it.
    function function_at(line,    i, found, begin) {
        found = "?"
        begin = 0
        for (i = 1; i <= functions; i++)
            if (begins[i] <= line && begins[i] >= begin) { begin = begins[i]; found = names[i] }
        return found
    }
    /^SF:/ {
        path = substr($0, 4)
        if (index(path, root) == 1) path = substr(path, length(root) + 1)
        functions = 0
        first = 0
        files++
        paths[files] = path
        next
    }
    /^FN:/ {
        text = substr($0, 4)
        comma = index(text, ",")
        functions++
        begins[functions] = substr(text, 1, comma - 1) + 0
        name = substr(text, comma + 1)
        sub(/^[0-9]+,/, "", name)    # newer tools name the last line as well
        sub(/^[^ ]*\.c:/, "", name)  # and put the file before what is static
        names[functions] = name
        next
    }
    /^DA:/ {
        split(substr($0, 4), field, ",")
        lines[path]++
        if (field[2] + 0 > 0) { ran[path]++; next }
        name = function_at(field[1] + 0)
        if (first && field[1] == last + 1 && name == in_function) { last = field[1]; next }
        flush_range()
        first = last = field[1]
        in_function = name
        next
    }
    /^end_of_record/ { flush_range() }
    function verdict(label, tree, floor,    i, total, covered, share) {
        for (i = 1; i <= files; i++)
            if (index(paths[i], tree) == 1) { total += lines[paths[i]]; covered += ran[paths[i]] }
        if (!total) { printf "==> FAILED: coverage has no lines of %s\n", tree; failed = 1; return }
        share = 100 * covered / total
        printf "==> coverage: %s %.2f %% (%d of %d lines), floor %d %%\n", label, share, covered, total, floor
        if (share < floor) { printf "==> FAILED: %s is below its floor\n", label; failed = 1 }
    }
    END {
        printf "==> coverage: lines by file\n"
        for (i = 1; i <= files; i++)
            if (lines[paths[i]])
                printf "    %6.2f %%  %4d of %4d  %s\n", 100 * ran[paths[i]] / lines[paths[i]], ran[paths[i]],
                    lines[paths[i]], paths[i]
        verdict("CLoopCore", "CSystemShims/CLoopCore/", core_floor)
        verdict("EventLoops", "Sources/EventLoops/", library_floor)
        exit failed
    }' "$work_dir/lcov"
