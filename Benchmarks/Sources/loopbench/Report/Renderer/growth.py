# SPDX-License-Identifier: Apache-2.0
"""Sections of `loopbench grow`: one for each measure, with a plot of whatever figures it has."""

from __future__ import annotations

from collections.abc import Sequence

from figures import (
    RANGES,
    Plot,
    Section,
    against,
    bars_drawer,
    distinct,
    figure_names,
    grouped_by,
    lines_drawer,
    table_over,
)
from plots import Bars, Lines
from results import Entry

GROWTH_TEXT = {
    "echo": "Echo with more and more connections open, 64-byte messages.",
    "memory": "What a server holds for a connection that is open and silent, in its own memory and in the kernel's.",
    "accept": "Connections accepted per second.",
    "churn": "Connect, one echo, close, again and again.",
    "slow reader": "Some clients do not read what they asked for. The others must not notice.",
    "mixed sizes": "Small and large messages on the same server at once.",
}


def growth_sections(entries: Sequence[Entry]) -> list[Section]:
    made = []
    for measure, found in grouped_by(entries, "measure").items():
        name = "growth-" + measure.replace(" ", "-")
        section = Section(name, f"Growth: {measure}", GROWTH_TEXT.get(measure, ""))
        panels: list[Lines] = []
        bars: list[Bars] = []
        for figure in figure_names(found):
            lines, values, label = against(found, figure, "connections")
            if not values:
                continue
            if lines and distinct(found, "connections") > 1:
                panels.append(Lines(label, "connections", lines, log_y=False))
            else:
                bars.append(Bars(label, values))
            section.tables.append(table_over(found, figure, "connections"))
        if panels:
            title = f"{measure[:1].upper()}{measure[1:]}, against connections"
            section.plots.append(Plot(name, title, RANGES, lines_drawer(panels)))
        if bars:
            section.plots.append(Plot(f"{name}-bars", f"{measure[:1].upper()}{measure[1:]}", RANGES, bars_drawer(bars)))
        made.append(section)
    return made
