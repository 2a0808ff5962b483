#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: the SwiftNIO peers. swift-nio is fetched by the package manager, as any dependency.
set -eu
cd "$(dirname "$0")"
command -v swift >/dev/null || { echo "swift is missing" >&2; exit 1; }
build="swift build -c release --scratch-path $1/nio"
for program in nio-echo nio-loop; do
    $build --product "$program"
    cp "$($build --show-bin-path)/$program" "$1/$program"
done
version=$(swift package --scratch-path "$1/nio" show-dependencies --format json |
    awk -F '"' '$2 == "identity" { found = $4 == "swift-nio" } $2 == "version" && found { print $4; exit }')
compiler=$(swift --version 2>/dev/null | awk '{ for (i = 1; i < NF; i++) if ($i == "version") { print $(i + 1); exit } }')
echo "SwiftNIO $version, Swift $compiler" >"$1/nio-echo.version"
