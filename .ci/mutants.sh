#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mutants.sh: makes small changes in files of the core, one at a time, and prints those that no scenario and no seed of
# the model notices. What survives is equivalent, costs only time, or is a promise that no test holds the core to.
#
#   .ci/mutants.sh FILE[:FROM-TO]...     such as stream.c, or stream.c:750-766 for some of its lines
#
# The core as it is plays every case first; those that it fails today, or that take longer than MUTANTS_CASE_MS (100),
# are left out. MUTANTS_EVERY=n takes only every n-th mutant. MUTANTS_JOBS (2) at a time; none begins while
# MUTANTS_PAUSE_FILE exists. MUTANTS_RESULTS is a file to which every mutant adds a line. Nothing else is left behind,
# unless MUTANTS_WORK names a folder to keep and use again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '==> mutants: %s\n' "$1" >&2
    exit 1
}

(($# > 0)) || fail "which file? For example: .ci/mutants.sh stream.c:750-766"
for tool in clang python3; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is not in PATH."
done
for argument in "$@"; do
    [[ -f "CSystemShims/CLoopCore/src/${argument%%:*}" ]] || fail "there is no ${argument%%:*} in CSystemShims/CLoopCore/src"
done

if [[ -n "${MUTANTS_WORK:-}" ]]; then
    WORK="$MUTANTS_WORK"
    mkdir -p "$WORK"
else
    WORK="$(mktemp -d)"
    trap 'rm -rf "$WORK"' EXIT
fi
CORE="$PWD/CSystemShims/CLoopCore"
FLAGS="-std=gnu11 -D_GNU_SOURCE -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
INCLUDES="-I$CORE/include -iquote $CORE/src"
for folder in LoopModel CSimulator LoopCoreScenarios; do
    INCLUDES+=" -I$PWD/Tests/$folder/include -iquote $PWD/Tests/$folder"
done
LIBRARIES="-lev -luring -lpthread -ldl"
export WORK CORE FLAGS INCLUDES LIBRARIES
renice -n 10 -p $$ >/dev/null

# Without word splitting there would be an array in each use; flags and paths have no spaces in them.
# shellcheck disable=SC2086
build() {
    mkdir -p "$WORK/core" "$WORK/tests"
    local source
    for source in "$CORE"/src/*.c; do
        clang $FLAGS $INCLUDES -c "$source" -o "$WORK/core/$(basename "$source" .c).o"
    done
    for source in Tests/{LoopModel,CSimulator,LoopCoreScenarios,LoopMutants}/*.c; do
        clang $FLAGS $INCLUDES -c "$source" -o "$WORK/tests/$(basename "$(dirname "$source")")-$(basename "$source" .c).o"
    done
    clang $FLAGS "$WORK"/core/*.o "$WORK"/tests/*.o $LIBRARIES -o "$WORK/player" 2>"$WORK/log" || {
        cat "$WORK/log" >&2
        fail "the player does not link"
    }
}

if [[ ! -f "$WORK/cases.json" ]]; then
    build
    printf '==> mutants: the core as it is plays each case\n'
    "$WORK/player" --list >"$WORK/list" 2>"$WORK/log" || fail "the core as it is ended the process: $(tail -n 3 "$WORK/log")"
    python3 - "$WORK" <<'PYTHON'
import json, sys
rows = [line.rstrip("\n").split("\t") for line in open(sys.argv[1] + "/list")]
cases = [{"key": row[0], "name": row[1], "ms": int(row[2])} for row in rows if not row[3]]
json.dump(cases, open(sys.argv[1] + "/cases.json", "w"))
print(f"==> mutants: {len(cases)} cases of {len(rows)} passed")
PYTHON
fi
python3 .ci/mutants.py "$@"
