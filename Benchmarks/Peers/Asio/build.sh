#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: both Asio peers. The io_uring one needs Asio 1.21 or newer; Debian 12's Boost has 1.18, so both
# are built from the standalone library, which is the same source without the `boost` namespace.
set -eu
cd "$(dirname "$0")"
compiler="${CXX:-c++}"
flags="-std=c++20 -O2 -DNDEBUG -DASIO_STANDALONE -Wall -Wextra"
version=$(echo '#include <asio/version.hpp>
VERSION ASIO_VERSION' | "$compiler" -x c++ -E -P - 2>/dev/null | awk '$1 == "VERSION" { print $2 }')
[ -n "$version" ] || { echo "asio is missing" >&2; exit 1; }
name="Asio $((version / 100000)).$((version / 100 % 1000)).$((version % 100))"

"$compiler" $flags echo.cpp -o "$1/asio-epoll-echo" -lpthread
echo "$name" >"$1/asio-epoll-echo.version"

rm -f "$1/asio-uring-echo"
[ "$version" -ge 102100 ] || { echo "$name has no io_uring, 1.21 has" >&2; exit 1; }
"$compiler" $flags -DASIO_HAS_IO_URING -DASIO_DISABLE_EPOLL echo.cpp -o "$1/asio-uring-echo" -luring -lpthread
echo "$name, liburing $(pkg-config --modversion liburing)" >"$1/asio-uring-echo.version"
