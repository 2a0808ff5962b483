#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh: random sequences of operations on the core, checked against the model, on fresh seeds until the time is
# over. Builds core, simulator (where there is one) and model straight with clang, with sanitizers, in a few seconds.
#
#   SECONDS_MAX=30 [SEED=n] [STEPS=n] [BACKEND=selector|proactor|both] [KERNEL=real|simulated|both]
#   [FOCUS=any|cancels|timers] [TINY=1] [CALM=1] [TRACE=1] .ci/fuzz.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=.build-fuzz
mkdir -p "$out"

includes=(-ICSystemShims/CLoopCore/include -ITests/LoopModel/include -ITests/CSimulator/include)
sources=(CSystemShims/CLoopCore/src/*.c Tests/LoopModel/*.c Tests/LoopFuzz/main.c)
simulated=0
for file in Tests/CSimulator/*.c; do
    if [[ -f "$file" ]]; then
        sources+=("$file")
        simulated=1
    fi
done

printf '==> fuzz: building\n'
# Some linkers complain about every symbol of the sanitizer that they may not export.
clang -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    "${includes[@]}" "${sources[@]}" -o "$out/loopfuzz" -lev -luring -lpthread 2>"$out/log" ||
    { cat "$out/log" >&2 && exit 1; }
grep -v 'Cannot export local symbol' "$out/log" >&2 || true

arguments=(--seconds "${SECONDS_MAX:-30}" --backend "${BACKEND:-both}")
if [[ -n "${SEED:-}" ]]; then arguments+=(--seed "$SEED"); fi
if [[ -n "${STEPS:-}" ]]; then arguments+=(--steps "$STEPS"); fi
if [[ -n "${FOCUS:-}" ]]; then arguments+=(--focus "$FOCUS"); fi
if [[ -n "${TINY:-}" ]]; then arguments+=(--tiny); fi
if [[ -n "${CALM:-}" ]]; then arguments+=(--calm); fi
if [[ -n "${TRACE:-}" ]]; then arguments+=(--trace); fi

kernel="${KERNEL:-}"
if [[ -z "$kernel" ]]; then
    kernel=real
    if ((simulated)); then kernel=both; fi
fi
kernels=("$kernel")
if [[ "$kernel" == both ]]; then kernels=(real simulated); fi
for kernel in "${kernels[@]}"; do
    printf '==> fuzz: kernel %s, %s\n' "$kernel" "${arguments[*]}"
    status=0
    "$out/loopfuzz" --kernel "$kernel" "${arguments[@]}" >"$out/runs" || status=$?
    if ((status != 0)); then
        # The last run is the one that failed, or that ended the process.
        tail -n 20 "$out/runs" >&2
        printf '==> fuzz: FAILED\n' >&2
        exit "$status"
    fi
    printf '==> fuzz: kernel %s: %d runs passed\n' "$kernel" "$(wc -l <"$out/runs")"
done
