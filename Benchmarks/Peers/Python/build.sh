#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh DESTINATION: launchers for asyncio and for uvloop, both on the same interpreter. uvloop goes into a folder
# of DESTINATION, never into the system.
set -eu
cd "$(dirname "$0")"
here=$(pwd)
python=$(python3 -c 'import sys
assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"
print(sys.executable)') || { echo "a python3 of 3.11 or newer is missing" >&2; exit 1; }

launcher() { # FILE, FOLDER OF MODULES, OPTION
    printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "%s/echo.py" %s "$@"\n' "$2" "$python" "$here" "$3" >"$1"
    chmod +x "$1"
}
name=$("$python" -c 'import platform; print("CPython", platform.python_version())')
launcher "$1/asyncio-echo" "" ""
echo "$name" >"$1/asyncio-echo.version"

modules="$1/python"
if ! PYTHONPATH="$modules" "$python" -c 'import uvloop' 2>/dev/null; then
    rm -rf "$modules"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$modules" uvloop
fi
launcher "$1/uvloop-echo" "$modules" --uvloop
version=$(PYTHONPATH="$modules" "$python" -c 'import uvloop; print(uvloop.__version__)')
echo "uvloop $version, $name" >"$1/uvloop-echo.version"
