#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: the Go peer. The standard library is all it needs, so nothing is fetched.
set -eu
cd "$(dirname "$0")"
command -v go >/dev/null || { echo "go is missing" >&2; exit 1; }
GOTOOLCHAIN=local GOFLAGS=-mod=mod GOPROXY=off CGO_ENABLED=0 go build -o "$1/go-echo" .
go version | awk '{ sub(/^go/, "", $3); print "Go " $3 }' >"$1/go-echo.version"
