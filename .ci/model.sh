#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# model.sh: model-checks the wake-up protocol (CSystemShims/CLoopCore/model/inbox.pml) with SPIN, exhaustively, once as
# epoll and once as io_uring sees the eventfd; then takes away one part of the protocol after the other, and fails
# unless each time SPIN finds what goes wrong without it. Nothing is left behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model="$PWD/CSystemShims/CLoopCore/model/inbox.pml"
depth_max=10000 # far more than the longest run takes; a search that gets there fails
seconds_max=120 # for one search

# Each name is a switch of the model: what is missing, and what SPIN has to find without it.
mutations=(
    "NO_PRODUCER_FENCE|invalid end state|the producer's look at the flag may come before its push"
    "NO_CONSUMER_FENCE|invalid end state|the loop's look at the inbox may come before its flag"
    "NO_SECOND_LOOK|invalid end state|the loop does not look at the inbox before it sleeps"
    "NO_STOP_LOOK|invalid end state|the loop does not look for a stop before it sleeps"
    "NO_STOP_FENCE|invalid end state|the look at the flag may come before the stop"
    "CLEAR_AFTER_LOOK|invalid end state|the eventfd is read between the look and the sleep"
    "NO_EXCHANGE|assertion violated|the flag is looked at and cleared in two steps"
    "PUSH_RELAXED|assertion violated|a node may be seen before its link"
    "PUSH_IN_TWO_STEPS|assertion violated|the push looks at the head and replaces it in two steps"
    "TAKE_IN_TWO_STEPS|assertion violated|the take looks at the head and empties it in two steps"
    "NO_REVERSAL|assertion violated|the list is run as it is linked"
    "CLOSE_WITHOUT_MARK|assertion violated|close leaves an empty list rather than the mark"
    "CLOSE_IN_TWO_STEPS|assertion violated|close takes the list and leaves the mark in two steps"
    "NO_LEASE_REFERENCE|assertion violated|who gives back a lease holds no reference while it wakes the loop"
    "NO_JOB_REFERENCE|assertion violated|who enqueues a job holds no reference while it wakes the loop"
    "POSTER_OWNS_NOTHING|assertion violated|who posts does not keep the loop alive"
    "NO_HEADROOM|assertion violated|references of an open loop start at one"
    "FD_CLOSED_BY_CLOSE|assertion violated|close closes the eventfd rather than who is last"
)

fail() {
    printf '==> model: %s\n' "$1" >&2
    exit 1
}

command -v spin >/dev/null 2>&1 ||
    fail "spin is not in PATH. Install the Debian package spin (apt-get install spin), or build https://spinroot.com/"
compiler=""
for candidate in cc gcc clang; do
    if command -v "$candidate" >/dev/null 2>&1; then
        compiler="$candidate"
        break
    fi
done
[[ -n "$compiler" ]] || fail "there is no C compiler in PATH (cc, gcc or clang); SPIN's verifiers are C."

work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT
cd "$work_dir"

# search "<switches for spin>" <flags for the compiler>: leaves the verifier's words in `log`.
search() {
    local switches="$1" status=0
    shift
    rm -f pan pan.* log ./*.trail
    # shellcheck disable=SC2086 # the switches are several words on purpose
    spin $switches -a "$model" >log 2>&1 && "$compiler" -w -DSAFETY "$@" -o pan pan.c >>log 2>&1 || status=$?
    if ((status != 0)); then
        cat log >&2
        fail "the model does not compile ($switches)"
    fi
    # Lossless: states are stored whole or collapsed, never as hashes or bits. DFS ends at the first error.
    (ulimit -v 2000000 && timeout "$seconds_max" ./pan "-m$depth_max") >log 2>&1 || status=$?
    if ((status != 0)); then
        cat log >&2
        fail "the verifier ended with exit status $status ($switches)"
    fi
    if ! grep -q 'errors: [0-9]' log; then
        cat log >&2
        fail "the verifier did not come to an end ($switches)"
    fi
}

# First capture of an extended regular expression in `log`.
said() { sed -nE "s/.*$1.*/\\1/p" log | head -n 1; }

exhaustive() {
    local what="$1" switches="$2"
    search "$switches" -O2 -DCOLLAPSE
    if ! grep -q 'errors: 0$' log || grep -qiE \
        'search not completed|max search depth too small|out of memory|hash-?compact|bit ?state|^pan:[0-9]+:' log; then
        cat log >&2
        fail "$what: an error, or a search that is not complete"
    fi
    grep -q 'Full statespace search' log || fail "$what: this was not a full search"
    printf '==> model: %s: no error in %s states, %s transitions, to depth %s, in %s MB\n' "$what" \
        "$(said '^ *([0-9.e+]+) states, stored')" "$(said '^ *([0-9.e+]+) transitions')" \
        "$(said 'depth reached ([0-9]+)')" "$(said '^ *([0-9.]+).total actual memory usage')"
}

counter_example() {
    local name expected what found
    IFS='|' read -r name expected what <<<"$1"
    # -O0: most of the time goes into the compiler.
    search "-D$name" -O0
    grep -q 'errors: 1$' log || fail "$name: nothing goes wrong although $what; is that part needed?"
    found="$(sed -nE 's/^pan:[0-9]+: (.*) \(at depth [0-9]+\)$/\1/p' log | head -n 1)"
    [[ "$found" == "$expected"* ]] || fail "$name: expected '$expected', found '$found'"
    [[ -s inbox.pml.trail ]] || fail "$name: an error without a trail"
    printf '    %-20s %s: %s, after %d steps\n' "$name" "$what" "$found" "$(grep -cE '^[0-9]+:' inbox.pml.trail)"
}

printf '==> model: %s\n' "$(spin -V)"
exhaustive "the eventfd as epoll sees it" ""
exhaustive "the eventfd as io_uring sees it" "-DPROACTOR"
printf '==> model: with one part missing, each has to fail\n'
for mutation in "${mutations[@]}"; do counter_example "$mutation"; done
printf '==> model: complete, and each of %d parts is needed (%d s)\n' "${#mutations[@]}" "$SECONDS"
