# SPDX-License-Identifier: Apache-2.0
"""Sections of `loopbench loop`: timers, calls from threads, and what depends on neither."""

from __future__ import annotations

from collections.abc import Sequence

from figures import (
    RANGES,
    Cell,
    Plot,
    Section,
    Table,
    against,
    bars_drawer,
    distinct,
    figure_names,
    grouped_by,
    lines_drawer,
    table_over,
)
from plots import Bars, Lines
from results import Entry, spreads
from style import ordered, words

# The first of these that a subject has is drawn.
TIMED = (("nanosecondsPerOperation", ", ns"), ("nanosecondsP50", ", p50, ns"), ("voluntarySwitches", ", switches"))


def loop_sections(entries: Sequence[Entry]) -> list[Section]:
    """One section for what depends on pending timers, one for what depends on threads, one for the rest."""
    by_fact: dict[str, dict[str, list[Entry]]] = {"pending": {}, "threads": {}, "": {}}
    for subject, found in grouped_by(entries, "subject").items():
        fact = next((fact for fact in ("pending", "threads") if distinct(found, fact) > 1), "")
        by_fact[fact][subject] = found
    return [
        _varied_section(
            by_fact["pending"], "pending",
            Section("timers", "Timers", "What one operation costs while so many timers are pending. Less is better; "
                    "both axes are logarithmic, so a flat line does not care how many there are."),
        ),
        _varied_section(
            by_fact["threads"], "threads",
            Section("calls", "Calls from threads", "What it costs to hand a loop something to do from other threads, "
                    "by how many do it at once. Less is better."),
        ),
        _unvaried_section(by_fact[""]),
    ]  # fmt: skip


def _varied_section(subjects: dict[str, list[Entry]], fact: str, section: Section) -> Section:
    panels: list[Lines] = []
    for subject, found in subjects.items():
        figure, unit = _timed(found)
        series, _, _ = against(found, figure, fact, keep_unit=True)
        if series:
            panels.append(Lines(subject + unit, fact, series, log_y=fact == "pending"))
            section.tables.append(table_over(found, figure, fact, prefix=subject))
    section.shown = len(section.tables)
    for subject, found in subjects.items():
        others = [name for name in figure_names(found) if name != _timed(found)[0]]
        section.tables += [table_over(found, figure, fact, prefix=subject) for figure in others]
    if panels:
        title = f"Nanoseconds per operation, against {'timers pending' if fact == 'pending' else fact}"
        section.plots.append(Plot(section.name, title, RANGES, lines_drawer(panels)))
    return section


def _unvaried_section(subjects: dict[str, list[Entry]]) -> Section:
    section = Section("tasks", "The rest of a loop", "What one operation costs. Less is better.", shown=len(subjects))
    panels: list[Bars] = []
    for subject, found in subjects.items():
        figure, unit = _timed(found)
        values = spreads(found, figure)
        if values:
            panels.append(Bars(subject + unit, values, least=1))
        timed_first = sorted(figure_names(found), key=lambda name: name != figure)
        columns = {name: spreads(found, name) for name in timed_first}
        names = ordered(name for column in columns.values() for name in column)
        rows: list[tuple[str, list[Cell]]] = [(n, [column.get(n) for column in columns.values()]) for n in names]
        section.tables += [Table(subject, [words(name) for name in columns], rows)] if rows else []
    if panels:
        section.plots.append(Plot("tasks", "One operation", RANGES, bars_drawer(panels)))
    return section


def _timed(entries: Sequence[Entry]) -> tuple[str, str]:
    names = figure_names(entries)
    return next((timed for timed in TIMED if timed[0] in names), (names[0] if names else "", ""))
