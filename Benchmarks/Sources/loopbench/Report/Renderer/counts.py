# SPDX-License-Identifier: Apache-2.0
"""The section of `loopbench counts`: system calls, mallocs, instructions and whatever else was counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from figures import Cell, Plot, Section, Table, bars_by_shape, by_scenario, spreads_by_shape
from plots import Stack, draw_stacks
from results import Entry, Scenario
from style import call_group, number, ordered, words


def counts_sections(entries: Sequence[Entry]) -> list[Section]:
    shapes = by_scenario([entry for entry in entries if entry.figures])
    if not shapes:
        return []
    section = Section(
        "counts",
        "Counts per request",
        "What one echo costs in steady state, counted rather than timed: it does not depend on the clock, and hardly "
        "on the machine. Counting slows a server down, so more messages wait whenever it looks and batches are larger "
        "than in real life: compare with the floor beside it.",
        shown=2,
    )
    stacks = []
    for shape, found in shapes.items():
        parts: dict[str, dict[str, float]] = {}
        for entry in found:
            calls = {n.removeprefix("syscalls."): v for n, v in entry.figures.items() if n.startswith("syscalls.")}
            if calls:
                parts[entry.contender] = _grouped(calls)
        if parts:
            stacks.append(Stack(shape.title, parts))
    if stacks:
        section.plots.append(
            Plot(
                "system-calls", "System calls per request, by name",
                "Shorter is better. io_uring receives and sends without calls of their own; with many connections one "
                "call serves many requests.", lambda wide: draw_stacks(stacks, wide),
            )
        )  # fmt: skip
    known = ["mallocs", "instructions"]
    names = list(dict.fromkeys(name for entry in entries for name in entry.figures if "." not in name))
    for name in known:
        values = spreads_by_shape(shapes, name)
        section.plots += bars_by_shape(
            f"{name}-per-request", f"{words(name).capitalize()} per request",
            {"mallocs": "Calls of malloc and its relatives. Nothing is the aim.",
             "instructions": "In user space, as callgrind counts them; the kernel's are not among them."}[name],
            values, least=1,
        ) if values else []  # fmt: skip
    for shape, found in shapes.items():
        section.tables.append(_counts_table(shape, found, names))
    return [section]


def _grouped(calls: dict[str, float]) -> dict[str, float]:
    groups: dict[str, float] = defaultdict(float)
    for name, count in calls.items():
        groups[call_group(name)] += max(count, 0)
    return dict(groups)


def _counts_table(shape: Scenario, entries: Sequence[Entry], names: Sequence[str]) -> Table:
    by_name = {entry.contender: entry for entry in entries}
    rows: list[tuple[str, list[Cell]]] = []
    for name in ordered(by_name):
        figures = by_name[name].figures
        calls = sorted(
            ((n.removeprefix("syscalls."), v) for n, v in figures.items() if n.startswith("syscalls.") and v >= 0.0005),
            key=lambda call: -call[1],
        )
        text = ", ".join(f"{call} {number(value)}" for call, value in calls)
        rows.append((name, [*(figures.get(column) for column in names), text]))
    return Table(f"{shape.title}, per request", [*map(words, names), "system calls by name"], rows)
