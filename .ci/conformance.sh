#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# conformance.sh: docs/conformance.md, a line per row of Tests/rows.tsv, from the results that `make test` kept; runs
# it if there are none. Results of a simulated run, if they are there, fill a column of their own.
#
#   .ci/conformance.sh write  writes the file; fails if a test's name starts with the id of no row
#   .ci/conformance.sh check  changes nothing; fails as well if the file is out of date, or a row passes no longer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="${1-}"
mode="${mode#--}"
case "$mode" in
    write | check) ;;
    *)
        printf 'usage: .ci/conformance.sh write|check\n' >&2
        exit 2
        ;;
esac

results=.build/test-results/kernel.jsonl
simulated=.build/test-results/simulated.jsonl

# Failed tests are not this script's failure: the table says which rows fail. A run that broke off left no results
# that can be used, and is found out below.
if [[ ! -e "$results" ]]; then make test || true; fi

arguments=(--table docs/conformance.md --rows Tests/rows.tsv --results "$results")
if [[ -e "$simulated" ]]; then arguments+=(--simulated "$simulated"); fi
release="$(uname -r)"
[[ "$release" =~ ^[0-9]+\.[0-9]+ ]] && release="${BASH_REMATCH[0]}"
arguments+=(--kernel "$release")

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if ! swift build --product Conformance >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
"$(swift build --show-bin-path)/Conformance" "$mode" "${arguments[@]}"
