#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docs.sh: the API reference, from the sources' doc comments into .docs-out. The DocC plugin would be a package
# dependency, and this package has none; so the compiler writes the symbol graph, and the toolchain's docc reads it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

module=EventLoops
output=.docs-out

# docc sits beside swift; a version manager may put only its own proxies in PATH.
docc="$(command -v docc)" || docc="$(dirname "$(readlink -f "$(command -v swift)")")/docc"
if [[ ! -x "$docc" ]]; then
    printf '==> docs: no docc beside swift; it is part of the toolchains from https://www.swift.org/install/linux/\n' >&2
    exit 1
fi

work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT

printf '==> docs: symbol graph of %s\n' "$module"
# The graph appears only when the compiler runs, and an unchanged module is not compiled: hence a fresh folder.
swift build --scratch-path "$work_dir/build" --target "$module" \
    -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir -Xswiftc "$work_dir/graphs"

# The compiler leaves empty placeholders, and graphs of other modules, in the same folder.
mkdir "$work_dir/ours"
find "$work_dir/graphs" -type f -size +0 \( -name "$module.symbols.json" -o -name "$module@*.symbols.json" \) \
    -exec cp {} "$work_dir/ours/" \;
if [[ ! -e "$work_dir/ours/$module.symbols.json" ]]; then
    printf '==> docs: the compiler wrote no symbol graph of %s\n' "$module" >&2
    exit 1
fi

printf '==> docs: docc convert into %s\n' "$output"
catalog=()
if [[ -d "Sources/$module/$module.docc" ]]; then catalog=("Sources/$module/$module.docc"); fi
rm -rf "$output"
"$docc" convert ${catalog[@]+"${catalog[@]}"} --additional-symbol-graph-dir "$work_dir/ours" \
    --fallback-display-name "$module" --fallback-bundle-identifier "$module" --output-path "$output"

printf '==> docs: done; to read them: python3 -m http.server -d %s, then /documentation/%s\n' "$output" "${module,,}"
