#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh: makes sure that what the build needs is here. One line and no work when it is; otherwise installs the
# missing packages with apt-get, or says exactly what to install where there is no apt-get.
#
#   .ci/deps.sh               swift, pkg-config, and the headers of liburing and libev
#   .ci/deps.sh --with-tools  clang-format, strace, spin and valgrind as well: lint, format and some checks use them;
#                             and, where they can be had, the programs that tests talk to: python3, curl, socat, nc
set -euo pipefail

swift_major_min=6
swift_minor_min=2

fail() {
    printf '==> deps: %s\n' "$1" >&2
    shift
    if (($# > 0)); then printf '    %s\n' "$@" >&2; fi
    exit 1
}

with_tools=0
case "${1-}" in
    "") ;;
    --with-tools) with_tools=1 ;;
    *) fail "unknown argument: $1" "usage: .ci/deps.sh [--with-tools]" ;;
esac

[[ "$(uname -s)" == Linux ]] || fail "this library runs on Linux only (epoll and io_uring); this is $(uname -s)"

# Swift comes from swift.org rather than from a distribution, so this script only names what is needed.

swift_advice=(
    "Install a toolchain of Swift ${swift_major_min}.${swift_minor_min} or newer from https://www.swift.org/install/linux/"
    "(with swiftly: swiftly install latest) and put its usr/bin first in PATH."
)
command -v swift >/dev/null 2>&1 || fail "swift is not in PATH." "${swift_advice[@]}"
swift_text="$(swift --version 2>&1)" || fail "swift --version fails:" "$swift_text" "${swift_advice[@]}"
[[ "$swift_text" =~ Swift\ version\ ([0-9]+)\.([0-9]+)[^[:space:]]* ]] ||
    fail "cannot tell the version of this swift:" "$swift_text" "${swift_advice[@]}"
swift_version="${BASH_REMATCH[0]#Swift version }"
swift_major="${BASH_REMATCH[1]}"
swift_minor="${BASH_REMATCH[2]}"
if ((swift_major < swift_major_min || (swift_major == swift_major_min && swift_minor < swift_minor_min))); then
    fail "Swift $swift_version is too old." "${swift_advice[@]}"
fi

# The header has to be where the compiler looks, which is not always /usr/include; so ask the compiler.
has_header() {
    local header="$1" package="$2" compiler flags=""
    for compiler in clang cc gcc; do
        command -v "$compiler" >/dev/null 2>&1 || continue
        if command -v pkg-config >/dev/null 2>&1; then
            flags="$(pkg-config --cflags "$package" 2>/dev/null)" || flags=""
        fi
        # shellcheck disable=SC2086 # the flags are several words on purpose
        "$compiler" $flags -E -x c - <<<"#include <$header>" >/dev/null 2>&1
        return
    done
    [[ -e "/usr/include/$header" || -e "/usr/local/include/$header" ]]
}

# Fills `missing` with the Debian names of what is not here, and `wished` with those of what we can do without.
look() {
    missing=()
    wished=()
    command -v pkg-config >/dev/null 2>&1 || missing+=(pkg-config)
    has_header liburing.h liburing || missing+=(liburing-dev)
    has_header ev.h libev || missing+=(libev-dev)
    if ((with_tools)); then
        command -v clang-format >/dev/null 2>&1 || missing+=(clang-format)
        command -v strace >/dev/null 2>&1 || missing+=(strace)
        command -v spin >/dev/null 2>&1 || missing+=(spin)
        command -v valgrind >/dev/null 2>&1 || missing+=(valgrind)
        command -v python3 >/dev/null 2>&1 || wished+=(python3)
        command -v curl >/dev/null 2>&1 || wished+=(curl)
        command -v socat >/dev/null 2>&1 || wished+=(socat)
        command -v nc.openbsd >/dev/null 2>&1 || wished+=(netcat-openbsd)
    fi
}

all_here() {
    local extra=""
    if ((with_tools)); then extra=", clang-format, strace, spin, valgrind"; fi
    printf '==> deps: swift %s, pkg-config, liburing, libev%s: all here\n' "$swift_version" "$extra"
}

# Says a Debian package list in the words of another distribution: the first argument is that distribution.
names_for() {
    local family="$1" package
    shift
    local names=()
    for package in "$@"; do
        case "$family:$package" in
            fedora:pkg-config) names+=(pkgconf-pkg-config) ;;
            fedora:liburing-dev) names+=(liburing-devel) ;;
            fedora:libev-dev) names+=(libev-devel) ;;
            fedora:clang-format) names+=(clang-tools-extra) ;;
            suse:liburing-dev) names+=(liburing-devel) ;;
            suse:libev-dev) names+=(libev-devel) ;;
            suse:clang-format) names+=(clang) ;;
            arch:pkg-config) names+=(pkgconf) ;;
            arch:liburing-dev) names+=(liburing) ;;
            arch:libev-dev) names+=(libev) ;;
            arch:clang-format) names+=(clang) ;;
            alpine:pkg-config) names+=(pkgconf) ;;
            alpine:clang-format) names+=(clang-extra-tools) ;;
            *) names+=("$package") ;;
        esac
    done
    printf '%s' "${names[*]}"
}

# Other people's programs, which some tests talk to: no reason to fail, nor to ask for a password.
install_wished() {
    ((${#wished[@]} > 0)) || return 0
    local wanted="${wished[*]}" as_root=(env) log
    ((EUID == 0)) || as_root=(sudo -n env)
    if command -v apt-get >/dev/null 2>&1 && "${as_root[@]}" true >/dev/null 2>&1; then
        printf '==> deps: installing %s with apt-get, for tests\n' "$wanted"
        as_root+=(DEBIAN_FRONTEND=noninteractive apt-get)
        log="$(
            "${as_root[@]}" install -y -qq --no-install-recommends "${wished[@]}" 2>&1 ||
                { "${as_root[@]}" update -qq 2>&1 &&
                    "${as_root[@]}" install -y -qq --no-install-recommends "${wished[@]}" 2>&1; }
        )" || printf '%s\n' "$log" >&2
        look
    fi
    ((${#wished[@]} == 0)) ||
        printf '==> deps: without %s: the tests that talk to them are skipped\n' "${wished[*]}" >&2
}

look
if ((${#missing[@]} == 0)); then
    install_wished
    all_here
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    if command -v dnf >/dev/null 2>&1; then
        advice="dnf install $(names_for fedora "${missing[@]}")"
    elif command -v yum >/dev/null 2>&1; then
        advice="yum install $(names_for fedora "${missing[@]}")"
    elif command -v zypper >/dev/null 2>&1; then
        advice="zypper install $(names_for suse "${missing[@]}")"
    elif command -v pacman >/dev/null 2>&1; then
        advice="pacman -S $(names_for arch "${missing[@]}")"
    elif command -v apk >/dev/null 2>&1; then
        advice="apk add $(names_for alpine "${missing[@]}")"
    else
        fail "missing: ${missing[*]} (Debian's names), and there is no apt-get here." \
            "Install them with this system's package manager, or build from source:" \
            "liburing https://github.com/axboe/liburing, libev http://software.schmorp.de/pkg/libev.html"
    fi
    fail "missing: ${missing[*]} (Debian's names), and there is no apt-get here. As root, run:" "$advice"
fi

by_hand="apt-get update && apt-get install -y ${missing[*]}"
as_root=(env)
if ((EUID != 0)); then
    command -v sudo >/dev/null 2>&1 ||
        fail "missing: ${missing[*]}. Installing needs root, and there is no sudo. As root, run:" "$by_hand"
    as_root=(sudo env)
fi
apt_get() { "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get "$@"; }

printf '==> deps: installing %s with apt-get\n' "${missing[*]}"
# A stale third-party source fails the update and need not concern us; if it does, the install says so.
apt_get update -qq || printf '==> deps: apt-get update failed; trying to install all the same\n' >&2
apt_get install -y -qq --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]}; its own message is above." \
        "Check the network and the package sources, then run this as root:" "$by_hand"

wanted="${missing[*]}"
look
((${#missing[@]} == 0)) ||
    fail "apt-get installed $wanted, and still not found: ${missing[*]}." \
        "Does the compiler in PATH look in /usr/include? (clang -E -v -x c /dev/null)"
install_wished
all_here
