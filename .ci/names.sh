#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# names.sh: holds docs/asyncio.md against the asyncio of the python3 in PATH: every public name of its loops, servers,
# handles, transports, protocols and policies, and all that the module exports, has to be in the first column of a
# table; members under the heading of their class, or of one that it derives from. Rows have to be in Tests/rows.tsv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v python3 >/dev/null 2>&1; then
    printf '==> names: SKIPPED docs/asyncio.md against asyncio: python3 is not in PATH\n'
    exit 0
fi
if ! python3 -I -c 'import asyncio' >/dev/null 2>&1; then
    printf '==> names: SKIPPED docs/asyncio.md against asyncio: this python3 has none\n'
    exit 0
fi

exec python3 -I - docs/asyncio.md Tests/rows.tsv <<'PYTHON'
import re
import sys
import warnings

warnings.simplefilter("ignore")  # of what is deprecated, and all the same there
import asyncio
import asyncio.subprocess

CLASSES = """
    AbstractEventLoop BaseEventLoop AbstractServer Server Handle TimerHandle
    BaseTransport ReadTransport WriteTransport Transport DatagramTransport SubprocessTransport
    BaseProtocol Protocol BufferedProtocol DatagramProtocol SubprocessProtocol
    AbstractEventLoopPolicy DefaultEventLoopPolicy StreamReader StreamWriter Process Runner
""".split()

document, rows = sys.argv[1:]
problems = []


def find(name):
    """The class of that name; None: not in this version."""
    for module in (asyncio, asyncio.base_events, asyncio.events, asyncio.subprocess):
        for spelling in (name, "_" + name):
            if hasattr(module, spelling):
                return getattr(module, spelling)
    return None


def public(names):
    return {name for name in names if not name.startswith("_")}


# What the document says: per heading, the names in first columns; the empty heading is for those of no class.
said = {"": set()}
with open(rows, encoding="utf-8") as file:
    known_rows = {line.split("\t")[0] for line in file if not line.startswith("#")}
heading = ""
with open(document, encoding="utf-8") as file:
    for number, line in enumerate(file, 1):
        if line.startswith("#"):
            found = re.fullmatch(r"#+ `(\w+)`\s*", line)
            heading = found.group(1) if found else ""
            said.setdefault(heading, set())
        if not line.startswith("| ") or line.startswith("| asyncio |"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 4 or not cells[0] or not cells[1]:
            problems.append("line %d: four cells, of which the first two say something" % number)
            continue
        said[heading] |= set(re.findall(r"`(\w+)`", cells[0]))
        for row in re.findall(r"[A-Z]\d+", cells[3]):
            if row not in known_rows:
                problems.append("line %d: no row is named %s" % (number, row))

# What asyncio says.
count = 0
known = {"": public(asyncio.__all__)}
for name in CLASSES:
    kind = find(name)
    if kind is None:
        continue
    # Some of a base's members came to the class that derives from it first.
    bases = [base for base in kind.__mro__[1:] if base.__name__.lstrip("_") in CLASSES]
    own = public(dir(kind)) - set().union(*(public(dir(base)) for base in bases))
    if name == "BaseEventLoop":
        loop = asyncio.new_event_loop()
        own |= public(vars(loop))
        loop.close()
    known[name] = own
    if name not in said:
        problems.append("%s has no heading" % name)
        continue
    count += len(own)
    here = said[name].union(*(said.get(base.__name__.lstrip("_"), ()) for base in bases))
    for member in sorted(own - here):
        problems.append("%s.%s is in no table under that heading" % (name, member))
anywhere = set().union(*said.values()) | set(said)
count += len(known[""])
for name in sorted(known[""] - anywhere):
    problems.append("asyncio.%s is in no table" % name)

version = sys.version.split()[0]
for problem in problems:
    print("==> names: %s: %s" % (document, problem), file=sys.stderr)
if problems:
    print("==> FAILED: %s lacks names of asyncio in Python %s, or rows" % (document, version), file=sys.stderr)
    sys.exit(1)
others = sorted(
    (heading + "." + name).lstrip(".") for heading in said for name in said[heading]
    if not hasattr(find(heading) if heading else asyncio, name) and name not in known.get(heading, ())
)
print("==> names: %s has all %d names of asyncio in Python %s" % (document, count, version))
if others:
    print("    and of other versions, or of instances alone: %s" % ", ".join(others))
PYTHON
