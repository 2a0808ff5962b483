#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# format.sh: Swift through the toolchain's swift-format, C through clang-format. Rules: .swift-format, .clang-format.
#
#   .ci/format.sh lint   changes nothing, fails on the first tool that objects
#   .ci/format.sh write  formats in place
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="${1-}"
case "$mode" in
    lint | write) ;;
    *)
        printf 'usage: .ci/format.sh lint|write\n' >&2
        exit 2
        ;;
esac

swift_paths=()
for path in Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Sources Benchmarks/Tests \
    Benchmarks/Examples Benchmarks/LoopMeasuring Benchmarks/Peers/NIO/Package.swift Benchmarks/Peers/NIO/Sources; do
    if [[ -e "$path" ]]; then swift_paths+=("$path"); fi
done

# What git knows or would know; a source archive has no git, and there every C file outside build folders is ours.
list_c() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -z -co --exclude-standard -- '*.c' '*.h'
    else
        find . \( -name '.build*' -o -name .git \) -prune -o -type f \( -name '*.c' -o -name '*.h' \) -print0
    fi
}
c_files=()
while IFS= read -r -d '' file; do
    if [[ -f "$file" ]]; then c_files+=("$file"); fi # deleted, and not yet told to git
done < <(list_c)

if ((${#swift_paths[@]} > 0)); then
    printf '==> %s: swift format on %s\n' "$mode" "${swift_paths[*]}"
    if [[ "$mode" == lint ]]; then
        swift format lint --strict --recursive --parallel "${swift_paths[@]}"
    else
        swift format format --in-place --recursive --parallel "${swift_paths[@]}"
    fi
fi

if ((${#c_files[@]} > 0)); then
    printf '==> %s: clang-format on %d C files\n' "$mode" "${#c_files[@]}"
    if [[ "$mode" == lint ]]; then
        clang-format --dry-run -Werror "${c_files[@]}"
    else
        clang-format -i "${c_files[@]}"
    fi
fi
