#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: the tokio peer, from the crates Debian packages; nothing is fetched from crates.io.
#
# Built from a copy, so that Cargo.lock, which names what this machine happens to have, stays out of the sources.
set -eu
cd "$(dirname "$0")"
registry=/usr/share/cargo/registry
command -v cargo >/dev/null || { echo "cargo is missing" >&2; exit 1; }
[ -n "$(find $registry -maxdepth 1 -name 'tokio-1.*' 2>/dev/null)" ] ||
    { echo "Debian's tokio crate is missing" >&2; exit 1; }
work="$1/tokio"
mkdir -p "$work"
rm -rf "$work/source"
cp -rp . "$work/source"
cd "$work/source"
cargo build --release --offline --target-dir "$work/target" \
    --config 'source.crates-io.replace-with="debian"' --config "source.debian.directory=\"$registry\""
cp "$work/target/release/tokio-echo" "$1/tokio-echo"
version=$(awk '/^name = "tokio"$/ { getline; gsub(/[^0-9.]/, ""); print }' Cargo.lock)
echo "tokio $version, $(rustc --version | cut -d ' ' -f 1,2)" >"$1/tokio-echo.version"
