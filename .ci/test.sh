#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh: runs the root package's suite once, and fails when nothing ran: a filter, a skipped target or a broken
# test bundle must not look like success. The last line printed is Swift Testing's own count.
#
#   .ci/test.sh "<what this run is>" [arguments for swift test...]
#
# TEST_RESULTS=FILE keeps what each case of each test came to, as an event stream of version 0: the table of
# docs/conformance.md is made of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what="$1"
shift

log_dir="$(mktemp -d)"
trap 'rm -rf "$log_dir"' EXIT

# Into a pipe, a test process writes by the block, and what it wrote last goes down with it in a crash or a hang.
by_line=()
if command -v stdbuf >/dev/null 2>&1; then by_line=(stdbuf -oL); fi

results=()
if [[ -n "${TEST_RESULTS-}" ]]; then
    mkdir -p "$(dirname "$TEST_RESULTS")"
    rm -f "$TEST_RESULTS" # a run that breaks off leaves no results of an older one
    results=(--event-stream-output-path "$TEST_RESULTS" --event-stream-version 0)
fi

printf '==> %s\n' "$what"
# Each test has threads and loops of its own. All of them at once, on few processors and under a sanitizer, would keep
# each other waiting for so long that waits which mean a hang run out.
width=$(($(nproc) * 2))
# All tests are Swift Testing's. XCTest, when left on, adds "Executed 0 tests" and leaks that LeakSanitizer reports.
status=0
${by_line[@]+"${by_line[@]}"} swift test --disable-xctest \
    --experimental-maximum-parallelization-width "$width" ${results[@]+"${results[@]}"} "$@" 2>&1 | tee "$log_dir/log" || status=$?

if ((status != 0)); then
    printf '==> FAILED (exit status %d): %s\n' "$status" "$what" >&2
    exit "$status"
fi
if ! grep -q 'Test run with [1-9]' "$log_dir/log"; then
    printf '==> FAILED (no test ran): %s\n' "$what" >&2
    exit 1
fi
