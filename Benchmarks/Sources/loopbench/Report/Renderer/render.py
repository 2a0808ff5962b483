#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws a report of what loopbench measured: `render.py --into DIR FILE...`.

Writes index.html, each plot as PNG and as SVG, and results.json. Called by `loopbench run --report` and by `loopbench
report`, and works by itself as well. Exit status 69 says that matplotlib is missing or too old, 1 that a file could not
be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

MATPLOTLIB_MIN = (3, 6)
EX_UNAVAILABLE = 69  # sysexits.h


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws a report of what loopbench measured.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON that a loopbench command wrote")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="where to put the page and the plots")
    arguments = parser.parse_args()

    missing = matplotlib_missing()
    if missing:
        print(f"no page: {missing}; apt-get install python3-matplotlib, or pip install matplotlib", file=sys.stderr)
        return EX_UNAVAILABLE
    return draw(arguments.files, arguments.into)


def matplotlib_missing() -> str | None:
    """Why there can be no plots with this Python, or None."""
    try:
        import matplotlib
    except ImportError as error:
        return f"{sys.executable} has no matplotlib ({error})"
    version = tuple(int(part) for part in matplotlib.__version__.split(".")[:2])
    if version < MATPLOTLIB_MIN:
        return f"matplotlib {matplotlib.__version__} is older than {'.'.join(map(str, MATPLOTLIB_MIN))}"
    return None


def draw(files: list[Path], folder: Path) -> int:
    # Only now: these import matplotlib, and its absence deserves a better answer than a traceback.
    import matplotlib

    from counts import counts_sections
    from echo import echo_sections
    from growth import growth_sections
    from page import bundle, page
    from rest import loop_sections
    from results import Results, Unreadable
    from style import PAPER

    try:
        results = Results.load(files)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    entries = results.entries
    made = [
        *echo_sections(entries["measurements"]),
        *counts_sections(entries["counts"]),
        *growth_sections(entries["growth"]),
        *loop_sections(entries["loop"]),
    ]
    made = [section for section in made if section.tables]
    folder.mkdir(parents=True, exist_ok=True)
    for section in made:
        for plot in section.plots:
            figure = plot.draw(True)
            with matplotlib.rc_context({"svg.hashsalt": plot.name}):
                figure.savefig(folder / f"{plot.name}.svg", facecolor=PAPER.light, metadata={"Date": None})
            figure.savefig(folder / f"{plot.name}.png", facecolor=PAPER.light, dpi=160)
    text = json.dumps(bundle(results), indent=2) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(page(results, made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
