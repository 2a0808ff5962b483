#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# planted.sh: shows that the simulated kernel finds. Plants the bugs of Tests/Planted in a copy of the core, one at a
# time, and plays seeds 1, 2, 3 and on until a run fails; a bug that no seed finds fails the script. The core as it is
# plays the first seeds before, and any later one that has found a bug, and has to pass them all. Nothing is left behind.
#
#   .ci/planted.sh            all of them
#   .ci/planted.sh WORD...    those whose names contain one of the words, without the core as it is
#
# Each patch begins with a line that says what the bug is. It has to apply exactly, so that it is kept when the code
# around it changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds_before="${PLANTED_SEEDS:-120}" # for the core as it is
seconds_max="${PLANTED_SECONDS:-60}" # for one bug; all but a few take one
run_seconds_max=12                   # for one run, which takes far less than one; a leak of descriptors is waited for, 10 s
flags=(-std=gnu11 -D_GNU_SOURCE -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
libraries=(-lev -luring -lpthread -ldl)

fail() {
    printf '==> planted: %s\n' "$1" >&2
    exit 1
}

for tool in clang patch; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is not in PATH."
done

root="$PWD"
work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT
mkdir "$work_dir/tests" "$work_dir/core"
sources="$work_dir/CSystemShims/CLoopCore"

# The paths of the copy do not matter to what includes them, so the tests are built from where they are.
compile() {
    local source="$1" object="$2"
    clang "${flags[@]}" -I"$sources/include" -I"$root/Tests/LoopModel/include" -I"$root/Tests/LoopModel" \
        -I"$root/Tests/CSimulator/include" -I"$root/Tests/CSimulator" -c "$source" -o "$object"
}

copy_core() {
    rm -rf "$sources"
    mkdir -p "$(dirname "$sources")"
    cp -r "$root/CSystemShims/CLoopCore" "$sources"
}

# link_player <folder of the core's objects>: leaves an executable there.
link_player() {
    clang "${flags[@]}" "$1"/*.o "$work_dir"/tests/*.o "${libraries[@]}" -o "$1/player" >"$work_dir/log" 2>&1 || {
        cat "$work_dir/log" >&2
        fail "the player does not link"
    }
}

# What ended a run, in words, from what it printed; its exit status is the argument.
words() {
    local status="$1" text
    text="$(sed -nE \
        -e 's/^  step [0-9]+, pass [0-9]+: //p' \
        -e "s/.*(Assertion .* failed)\\..*/\\1/p" \
        -e 's/.*(broken invariant: .*)/\1/p' \
        -e 's/.*ERROR: (AddressSanitizer: [a-zA-Z-]+).*/\1/p' \
        -e 's/.*ERROR: (LeakSanitizer: [a-z ]+).*/\1/p' \
        -e 's/.*(runtime error: .*)/UndefinedBehaviorSanitizer: \1/p' \
        "$work_dir/log" | head -n 1)"
    if [[ -z "$text" ]]; then
        if ((status == 124 || status == 137)); then
            text="hang: no end in $run_seconds_max s"
        else
            text="exit status $status: $(tail -n 1 "$work_dir/log")"
        fi
    fi
    printf '%s' "$text"
}

# play <player> <seed> <backend>: one run; its words are in `log`. Every fourth seed runs in tiny sizes.
play() {
    local arguments=(--kernel simulated --seed "$2" --backend "$3")
    if (($2 % 4 == 0)); then arguments+=(--tiny); fi
    # The shell would say that a run was aborted; the outer redirection keeps that away.
    { timeout --kill-after=2 "$run_seconds_max" "$1" "${arguments[@]}" >"$work_dir/log" 2>&1; } 2>/dev/null
}

# The core as it is has to pass.
play_as_it_is() {
    local status=0
    play "$work_dir/core/player" "$1" "$2" || status=$?
    if ((status != 0)); then
        cat "$work_dir/log" >&2
        fail "the core as it is fails with seed $1: $(words "$status")"
    fi
}

# Which backends a patch can matter to.
backends_of() {
    local files
    files="$(sed -nE 's|^\+\+\+ b/.*/([a-z_]+)\.[ch].*|\1|p' "$1")"
    case "$files" in
        selector) printf 'selector' ;;
        proactor) printf 'proactor' ;;
        *) printf 'selector proactor' ;;
    esac
}

# Builds the core with the patch in it: only what the patch touches, or all of it after a change to a header.
plant() {
    local patch="$1" file changed
    copy_core
    (cd "$work_dir" && patch -p1 --fuzz=0 --silent --no-backup-if-mismatch <"$patch") >"$work_dir/log" 2>&1 || {
        cat "$work_dir/log" >&2
        fail "$(basename "$patch") no longer applies; bring it up to date with the core"
    }
    rm -rf "$work_dir/planted"
    mkdir "$work_dir/planted"
    cp "$work_dir"/core/*.o "$work_dir/planted"
    changed="$(sed -nE 's|^\+\+\+ b/(.*)|\1|p' "$patch")"
    if [[ "$changed" == *.h* ]]; then changed="$(cd "$work_dir" && ls CSystemShims/CLoopCore/src/*.c)"; fi
    for file in $changed; do
        compile "$work_dir/$file" "$work_dir/planted/$(basename "$file" .c).o"
    done
    link_player "$work_dir/planted"
}

not_found=0
hunt() {
    local patch="$1" name seed backend status runs=0 end found
    name="$(basename "$patch" .patch)"
    [[ "$(head -n 1 "$patch")" == "Bug: "* ]] || fail "$name does not say in its first line what the bug is"
    plant "$patch"
    end=$((SECONDS + seconds_max))
    for ((seed = 1; SECONDS < end; seed++)); do
        for backend in $(backends_of "$patch"); do
            runs=$((runs + 1)) status=0
            play "$work_dir/planted/player" "$seed" "$backend" || status=$?
            if ((status != 0)); then
                found="$(words "$status")"
                if ((seed > seeds_before)); then play_as_it_is "$seed" "$backend"; fi
                printf '    %-34s seed %d, %s, %d runs: %s\n' "$name" "$seed" "$backend" "$runs" "$found"
                return
            fi
        done
    done
    printf '    %-34s NOT FOUND in %d runs\n' "$name" "$runs"
    not_found=$((not_found + 1))
}

patches=()
for patch in "$root"/Tests/Planted/*.patch; do
    wanted=$(($# == 0))
    for word in "$@"; do
        if [[ "$(basename "$patch")" == *"$word"* ]]; then wanted=1; fi
    done
    if ((wanted)); then patches+=("$patch"); fi
done
((${#patches[@]} > 0)) || fail "no patch of that name in Tests/Planted"

copy_core
for source in Tests/LoopModel/*.c Tests/CSimulator/*.c Tests/LoopFuzz/main.c; do
    compile "$source" "$work_dir/tests/$(basename "$(dirname "$source")")-$(basename "$source" .c).o"
done
for source in "$sources"/src/*.c; do
    compile "$source" "$work_dir/core/$(basename "$source" .c).o"
done
link_player "$work_dir/core"
if (($# == 0)); then
    for ((seed = 1; seed <= seeds_before; seed++)); do
        for backend in selector proactor; do play_as_it_is "$seed" "$backend"; done
    done
    printf '==> planted: the core as it is: %d seeds on each backend, no finding (%d s)\n' "$seeds_before" "$SECONDS"
fi
printf '==> planted: with one bug planted, a seed has to fail\n'
for patch in "${patches[@]}"; do hunt "$patch"; done
((not_found == 0)) || fail "$not_found of ${#patches[@]} planted bugs were not found"
printf '==> planted: each of %d planted bugs is found (%d s)\n' "${#patches[@]}" "$SECONDS"
