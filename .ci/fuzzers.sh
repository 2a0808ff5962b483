#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzzers.sh: the fuzzers of Tests/Fuzzers, each for some seconds, guided by what code their inputs reach. Builds core,
# simulator, model and fuzzers straight with clang and its libFuzzer, with sanitizers, in a few seconds.
#
#   SECONDS_MAX=20 [LEAKS=0] .ci/fuzzers.sh [operations|options|address]...
#
# Begins with the corpus in Tests/Fuzzers/corpus and with what earlier runs have left in .build-fuzzers/corpus. An input
# that breaks something is kept in .build-fuzzers/found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=.build-fuzzers
names=("$@")
if ((${#names[@]} == 0)); then names=(operations options address); fi

includes=(CSystemShims/CLoopCore/include Tests/LoopModel/include Tests/CSimulator/include Tests/Fuzzers/include)
flags=(-std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -fno-sanitize-recover=undefined "${includes[@]/#/-I$PWD/}")

# Some linkers complain about every symbol of the sanitizer that they may not export.
quietly() {
    "$@" 2>"$out/log" || { cat "$out/log" >&2 && return 1; }
    grep -v 'Cannot export local symbol' "$out/log" >&2 || true
}

printf '==> fuzzers: building\n'
rm -rf "$out/objects"
for tree in CSystemShims/CLoopCore/src Tests/LoopModel Tests/CSimulator Tests/Fuzzers; do
    mkdir -p "$out/objects/$tree"
    quietly env -C "$out/objects/$tree" clang "${flags[@]}" -fsanitize=fuzzer-no-link,address,undefined \
        -c "$PWD/$tree"/*.c
done
rm "$out/objects/Tests/Fuzzers/entry.o"
for name in "${names[@]}"; do
    quietly clang "${flags[@]}" -fsanitize=fuzzer,address,undefined "-DFUZZER=fuzz_$name" Tests/Fuzzers/entry.c \
        "$out"/objects/*/*/*.o "$out"/objects/*/*/*/*.o -o "$out/fuzz_$name" -lev -luring -lpthread
done

# Longer inputs reach nothing more: a run has so many steps, and a text is repeated.
longest() { if [[ "$1" == address ]]; then echo 300; else echo 1000; fi; }

failed=0
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
mkdir -p "$out/found"
for name in "${names[@]}"; do
    corpus="$out/corpus/$name"
    mkdir -p "$corpus"
    arguments=(
        "-max_total_time=${SECONDS_MAX:-20}" "-max_len=$(longest "$name")" -len_control=0 -timeout=30
        -rss_limit_mb=3072 -malloc_limit_mb=512 "-detect_leaks=${LEAKS:-1}" "-artifact_prefix=$out/found/$name-"
    )
    began="$SECONDS" status=0
    "$out/fuzz_$name" "${arguments[@]}" "$corpus" "Tests/Fuzzers/corpus/$name" >"$out/$name.log" 2>&1 || status=$?
    if ((status == 0)); then
        done_line="$(grep -E '^#[0-9]+[[:space:]]+DONE' "$out/$name.log" || true)"
        printf '==> fuzzers: %-10s %s\n' "$name" "${done_line:-ended without a count of runs}"
        if [[ -z "$done_line" ]]; then failed=1; fi
        continue
    fi
    failed=1
    grep -vE '^#[0-9]+[[:space:]]' "$out/$name.log" | tail -n 60 >&2 || true
    printf '==> fuzzers: %s FAILED after %d s (exit status %d)\n' "$name" "$((SECONDS - began))" "$status" >&2
    input="$(sed -nE 's/.*Test unit written to (.*)$/\1/p' "$out/$name.log" | tail -n 1)"
    if [[ -n "$input" ]]; then
        printf 'Play it again, step by step:\n  FUZZ_TRACE=1 %s %s\n' "$out/fuzz_$name" "$input" >&2
    fi
done
if ((failed)); then printf '==> fuzzers: FAILED\n' >&2; fi
exit "$failed"
