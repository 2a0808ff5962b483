#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: the libuv peer.
set -eu
cd "$(dirname "$0")"
pkg-config --exists libuv || { echo "libuv is missing" >&2; exit 1; }
"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror $(pkg-config --cflags libuv) echo.c \
    -o "$1/libuv-echo" $(pkg-config --libs libuv)
echo "libuv $(pkg-config --modversion libuv)" >"$1/libuv-echo.version"
