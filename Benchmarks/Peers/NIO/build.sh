#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: the SwiftNIO peers. swift-nio is fetched by the package manager, as any dependency.
set -eu
cd "$(dirname "$0")"
command -v swift >/dev/null || { echo "swift is missing" >&2; exit 1; }
build="swift build -c release --scratch-path $1/nio"
$build --product nio-echo
cp "$($build --show-bin-path)/nio-echo" "$1/nio-echo"
version=$(swift package --scratch-path "$1/nio" show-dependencies --format json |
    awk -F '"' '$2 == "identity" { found = $4 == "swift-nio" } $2 == "version" && found { print $4; exit }')
compiler=$(swift --version 2>/dev/null | awk '{ for (i = 1; i < NF; i++) if ($i == "version") { print $(i + 1); exit } }')
echo "SwiftNIO $version, Swift $compiler" >"$1/nio-echo.version"
