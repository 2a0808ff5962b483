# SPDX-License-Identifier: Apache-2.0
"""What a page is made of, and the plots and tables that several sections have.

Owns plots and tables by kind: over all loads, over a number that grows. What they are about, and the words, are the
sections': echo.py, counts.py, growth.py, rest.py. How a plot looks is plots.py's, how a page looks is page.py's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from plots import Bars, Lines, draw_bars, draw_lines
from results import Entry, Scenario, Spread, spreads
from style import ordered, readable_unit, words

Cell = Spread | float | str | None


@dataclass(frozen=True)
class Table:
    """Contenders down, whatever was measured across."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    digits: int | None = None  # behind the point; None for as many as matter


@dataclass(frozen=True)
class Plot:
    name: str  # of its files
    title: str
    caption: str
    draw: Callable[[bool], Figure]


@dataclass
class Section:
    """Plots about one question, and the figures below them."""

    name: str
    title: str
    text: str
    plots: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    shown: int = 1  # of the tables; the others are folded

RANGES = "Medians; thin lines are the range over the rounds."


def by_scenario(entries: Iterable[Entry]) -> dict[Scenario, list[Entry]]:
    shapes: dict[Scenario, list[Entry]] = defaultdict(list)
    for entry in entries:
        shapes[entry.scenario].append(entry)
    return {shape: shapes[shape] for shape in sorted(shapes)}


def grouped_by(entries: Iterable[Entry], fact: str) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[str(entry.facts.get(fact, "unnamed"))].append(entry)
    return groups


def distinct(entries: Iterable[Entry], fact: str) -> int:
    return len({entry.facts[fact] for entry in entries if fact in entry.facts and entry.figures})


def figure_names(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry.figures))


def spreads_by_shape(
    shapes: dict[Scenario, list[Entry]], figure: str, factor: float = 1
) -> dict[Scenario, dict[str, Spread]]:
    found = {shape: spreads(entries, figure) for shape, entries in shapes.items()}
    scaled = {s: {name: spread.scaled(factor) for name, spread in values.items()} for s, values in found.items()}
    return {shape: values for shape, values in scaled.items() if values}


def against(
    entries: Sequence[Entry], figure: str, fact: str, keep_unit: bool = False
) -> tuple[dict[str, list[tuple[float, Spread]]], dict[str, Spread], str]:
    """A figure as lines over a fact, as bars over all, and its name with the unit that fits."""
    values = spreads(entries, figure)
    label, factor = (words(figure), 1.0) if keep_unit else readable_unit(figure, values.values())
    places = sorted({float(entry.facts[fact]) for entry in entries if fact in entry.facts})
    lines: dict[str, list[tuple[float, Spread]]] = {name: [] for name in ordered(values)}
    for place in places:
        for name, spread in spreads((e for e in entries if e.facts.get(fact) == place), figure).items():
            lines[name].append((place, spread.scaled(factor)))
    lines = {name: points for name, points in lines.items() if points}
    return lines, {name: spread.scaled(factor) for name, spread in values.items()}, label


def over_connections(
    shapes: dict[Scenario, list[Entry]], name: str, title: str, figure: str, caption: str, factor: float = 1,
    log_y: bool = False,
) -> list[Plot]:  # fmt: skip
    entries = [e for shape, found in shapes.items() if (shape.message_bytes, shape.depth) == (64, 1) for e in found]
    series: dict[str, list[tuple[float, Spread]]] = defaultdict(list)
    for shape, found in by_scenario(entries).items():
        for contender, spread in spreads(found, figure).items():
            series[contender].append((float(shape.connections), spread.scaled(factor)))
    if not series:
        return []
    panel = Lines("", "connections", {n: series[n] for n in ordered(series)}, log_x=True, log_y=log_y)
    return [Plot(name, title, caption, lines_drawer([panel]))]


def bars_by_shape(
    name: str, title: str, caption: str, values: dict[Scenario, dict[str, Spread]], baseline: float | None = None,
    least: float = 0,
) -> list[Plot]:  # fmt: skip
    panels = [Bars(shape.title, found, baseline, least) for shape, found in values.items() if found]
    return [Plot(name, title, caption, bars_drawer(panels))] if panels else []


def bars_drawer(panels: Sequence[Bars]) -> Callable[[bool], Figure]:
    return lambda wide: draw_bars(panels, wide)


def lines_drawer(panels: Sequence[Lines]) -> Callable[[bool], Figure]:
    return lambda wide: draw_lines(panels, wide)


def table_by_shape(title: str, values: dict[Scenario, dict[str, Spread]], digits: int | None = None) -> Table:
    names = ordered(name for found in values.values() for name in found)
    return Table(
        title, [shape.title for shape in values],
        [(name, [found.get(name) for found in values.values()]) for name in names], digits,
    )  # fmt: skip


def table_over(entries: Sequence[Entry], figure: str, fact: str, prefix: str = "") -> Table:
    label, factor = readable_unit(figure, spreads(entries, figure).values())
    places = sorted({e.facts[fact] for e in entries if fact in e.facts}) or [None]
    columns = {place: spreads((e for e in entries if e.facts.get(fact) == place), figure) for place in places}
    names = ordered(name for found in columns.values() for name in found)
    rows: list[tuple[str, list[Cell]]] = [
        (name, [found[name].scaled(factor) if name in found else None for found in columns.values()]) for name in names
    ]
    titles = [_place_title(place, fact) for place in places]
    return Table(f"{prefix}: {label}" if prefix else label, titles, rows)


def _place_title(place: object, fact: str) -> str:
    if not isinstance(place, int):
        return "all"
    return f"{place:,} {fact.removesuffix('s') if place == 1 else fact}"
