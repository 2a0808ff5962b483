#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check-consumer.sh: another package can depend on this one by URL and version. SwiftPM is stricter there than at
# home: no unsafe flags, no files that only exist in the work tree, no products that only tests can reach.
# Everything happens in a temporary folder, SwiftPM's caches and fingerprints included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '==> consume: %s\n' "$1"; }

if ! head="$(git rev-parse --short HEAD 2>&1)"; then
    say "there is no commit to depend on: $head" >&2
    exit 1
fi
if [[ -n "$(git status --porcelain)" ]]; then
    say "NOTE: there are uncommitted changes; what is tested is HEAD ($head), without them"
fi

work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT
origin="$work_dir/swift-event-loops"
consumer="$work_dir/consumer"

say "cloning HEAD ($head) and tagging the clone 1.0.0"
git clone --quiet --no-local . "$origin"
git -C "$origin" -c tag.gpgSign=false tag --force 1.0.0 HEAD >/dev/null

say "writing a package that depends on it from 1.0.0"
mkdir -p "$consumer/Sources/consumer"
cat >"$consumer/Package.swift" <<MANIFEST
// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "consumer",
    dependencies: [.package(url: "file://$origin", from: "1.0.0")],
    targets: [
        .executableTarget(
            name: "consumer",
            dependencies: [.product(name: "EventLoops", package: "swift-event-loops")]
        )
    ]
)
MANIFEST
cat >"$consumer/Sources/consumer/main.swift" <<'PROGRAM'
import EventLoops

try Loops.run { loop in
    print("hello from", loop.backend)
}
PROGRAM

options=(
    --package-path "$consumer" --cache-path "$work_dir/cache"
    --config-path "$work_dir/config" --security-path "$work_dir/security"
)
say "building it"
swift build "${options[@]}"
say "running it"
output="$("$(swift build "${options[@]}" --show-bin-path)/consumer")"
printf '%s\n' "$output"
if [[ "$output" != "hello from "* ]]; then
    say "FAILED: expected a line that starts with: hello from" >&2
    exit 1
fi
say "passed"
