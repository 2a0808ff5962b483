# SPDX-License-Identifier: Apache-2.0
"""Which plots and tables a page has: chosen by what was measured, told in plain words.

Owns the choice and the captions; how a plot looks is plots.py's, how a page looks is page.py's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from plots import Bars, Lines, Stack, draw_bars, draw_lines, draw_stacks
from results import Entry, Results, Scenario, Spread, ratios, spreads
from style import call_group, floors, number, ordered, readable_unit, style, words

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


def sections(results: Results) -> list[Section]:
    made = [
        *echo_sections(results.entries["measurements"]),
        *counts_sections(results.entries["counts"]),
        *growth_sections(results.entries["growth"]),
        *loop_sections(results.entries["loop"]),
    ]
    return [section for section in made if section.tables]


# MARK: run


def echo_sections(entries: Sequence[Entry]) -> list[Section]:
    shapes = _by_scenario(entries)
    if not shapes:
        return []
    return [_floor_section(shapes), _rate_section(shapes), _cost_section(shapes), _wait_section(shapes)]


def _floor_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    section = Section(
        "floor",
        "Against the floor",
        "A floor is a plain C server on the same kernel interface, with nothing between: the least a server can do "
        "there. 1 means as fast as that. This is the figure to look at, since both met the machine in the same mood.",
    )
    rate, cost = (
        {shape: ratios(found, figure, floors(e.contender for e in found)) for shape, found in shapes.items()}
        for figure in ("requestsPerSecond", "serverMicrosecondsPerRequest")
    )
    section.plots += _bars(
        "rate-against-floor", "Requests per second over the floor’s",
        "Right of the line is faster than the floor. The mark is the median over the rounds, the line its range; a range "
        "that leaves the axis is cut there, and stands in the table.", rate, baseline=1,
    )  # fmt: skip
    section.tables += [
        _by_shape("Requests per second / the floor’s, median and range", rate, digits=2),
        _by_shape("CPU per request / the floor’s", cost, digits=2),
    ]
    ahead = {shape: _times_as_fast(found) for shape, found in shapes.items()}
    ahead = {shape: values for shape, values in ahead.items() if values}
    section.plots += _bars(
        "proactor-against-peers", "ProactorLoop’s rate over each peer’s",
        "How many times as many requests per second `proactor async` served as the peer named at the left, in the "
        "same round. Longer is better for us; below 1 the peer was faster.", ahead,
    )  # fmt: skip
    if ahead:
        section.tables.append(_by_shape("Requests per second of proactor async / the peer’s", ahead, digits=2))
    return section


def _times_as_fast(entries: Iterable[Entry]) -> dict[str, Spread]:
    found = list(entries)
    peers = {e.contender: "proactor async" for e in found if style(e.contender).kind == "peer"}
    inverse = ratios(found, "requestsPerSecond", peers)
    return {name: Spread(1 / s.median, 1 / s.high, 1 / s.low) for name, s in inverse.items() if s.low > 0}


def _rate_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    section = Section(
        "throughput",
        "Throughput",
        "Messages that came back whole, per second. More is better. The server has one thread on one CPU. Where it is "
        "not busy, the load generator or the wake-up of a sleeping CPU sets the pace, and rates say little about the "
        "server: one connection is always of that kind.",
    )
    section.plots += _over_connections(
        shapes, "throughput", "Requests per second against connections", "requestsPerSecond",
        "64-byte messages, one in flight on each connection. Vertical lines are the range over the rounds.",
    )  # fmt: skip
    rates = _spreads(shapes, "requestsPerSecond")
    section.plots += _bars(
        "throughput-by-load", "Requests per second, by load",
        "Connections × message bytes; depth is how many messages are in flight on each connection.", rates,
    )  # fmt: skip
    section.tables.append(_by_shape("Requests per second, median and range", rates))
    section.tables.append(_by_shape("Server busy, percent of one CPU", _spreads(shapes, "serverBusyPercent")))
    return section


def _cost_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    costs = _spreads(shapes, "serverMicrosecondsPerRequest")
    section = Section(
        "cpu",
        "CPU per request",
        "CPU time of the server process, all its threads, divided by the requests it served. Less is better. It counts "
        "the kernel's work on the server's behalf, which is most of it.",
    )
    section.plots += _bars(
        "cpu-per-request", "CPU microseconds per request", "Shorter is better. Note that each panel has its own scale.",
        costs,
    )  # fmt: skip
    section.tables.append(_by_shape("CPU µs per request, median and range", costs))
    return section


def _wait_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    section = Section(
        "latency",
        "Waiting",
        "Time from sending a message to having all of it back. In a closed loop this follows from throughput: 50 "
        "connections at 200,000 requests per second wait 250 µs by arithmetic. It does not say what a lightly loaded "
        "server would answer in. Percentiles are taken in each round; shown is the median over the rounds.",
    )
    section.plots += _over_connections(
        shapes, "p99", "99th percentile against connections, µs", "latencyNanoseconds.p99",
        "Lower is better. 64-byte messages, one in flight on each connection; both axes are logarithmic.",
        factor=1e-3, log_y=True,
    )  # fmt: skip
    for figure, title in (("p50", "p50, µs"), ("p99", "p99, µs"), ("p999", "p99.9, µs")):
        values = _spreads(shapes, f"latencyNanoseconds.{figure}", 1e-3)
        section.tables += [_by_shape(title, values)] if values else []
    return section


# MARK: counts


def counts_sections(entries: Sequence[Entry]) -> list[Section]:
    shapes = _by_scenario([entry for entry in entries if entry.figures])
    if not shapes:
        return []
    section = Section(
        "counts",
        "Counts per request",
        "What one echo costs in steady state, counted rather than timed: it does not depend on the clock, and hardly "
        "on the machine. Counting slows a server down, so more messages wait whenever it looks and batches are larger "
        "than in real life: compare with the floor beside it.",
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
        values = _spreads(shapes, name)
        section.plots += _bars(
            f"{name}-per-request", f"{words(name).capitalize()} per request",
            {"mallocs": "Calls of malloc and its relatives. Nothing is the aim.",
             "instructions": "In user space, as callgrind counts them; the kernel's are not among them."}[name],
            values,
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


# MARK: grow


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
    for measure, found in _grouped_by(entries, "measure").items():
        name = "growth-" + measure.replace(" ", "-")
        section = Section(name, measure[:1].upper() + measure[1:], GROWTH_TEXT.get(measure, ""))
        panels: list[Lines] = []
        bars: list[Bars] = []
        for figure in _figure_names(found):
            lines, values, label = _against(found, figure, "connections")
            if not values:
                continue
            if lines and _distinct(found, "connections") > 1:
                panels.append(Lines(label, "connections", lines, log_y=False))
            else:
                bars.append(Bars(label, values))
            section.tables.append(_over_parameter(found, figure, "connections"))
        if panels:
            section.plots.append(
                Plot(name, f"{section.title} against connections", _RANGES, _lines_drawer(panels))
            )  # fmt: skip
        if bars:
            section.plots.append(Plot(f"{name}-bars", section.title, _RANGES, _bars_drawer(bars)))
        made.append(section)
    return made


_RANGES = "Medians; lines through them are the range over the rounds. What is better is said by each title's unit."


# MARK: loop


def loop_sections(entries: Sequence[Entry]) -> list[Section]:
    timed = "nanosecondsPerOperation"
    pending = Section(
        "timers", "Timers",
        "What one operation costs while so many timers are pending. Less is better; both axes are logarithmic, so a "
        "line that is flat does not care how many there are.",
    )  # fmt: skip
    threads = Section(
        "calls", "Calls from threads",
        "What it costs to hand a loop something to do, from its own thread and from others. Less is better.",
    )  # fmt: skip
    tasks = Section("tasks", "Tasks and the rest of a loop", "What one operation costs. Less is better.")
    lines: dict[str, list[Lines]] = defaultdict(list)
    bars: list[Bars] = []
    for subject, found in _grouped_by(entries, "subject").items():
        by = "pending" if _distinct(found, "pending") > 1 else "threads" if _distinct(found, "threads") > 1 else ""
        section = {"pending": pending, "threads": threads, "": tasks}[by]
        series, values, _ = _against(found, timed, by or "pending", keep_unit=True)
        if by and series:
            lines[by].append(Lines(f"{subject}, ns", by, series, log_x=True, log_y=True))
        elif values:
            bars.append(Bars(f"{subject}, ns", values))
        for figure in _figure_names(found):
            section.tables.append(_over_parameter(found, figure, by or "pending", prefix=subject))
    text = "Medians; vertical lines are the range over the rounds."
    if lines["pending"]:
        pending.plots.append(Plot("timers", "Nanoseconds against timers pending", text, _lines_drawer(lines["pending"])))
    if lines["threads"]:
        threads.plots.append(Plot("calls", "Nanoseconds per call against threads", text, _lines_drawer(lines["threads"])))
    if bars:
        tasks.plots.append(Plot("tasks", "Nanoseconds per operation", text, _bars_drawer(bars)))
    return [pending, threads, tasks]


# MARK: shared


def _by_scenario(entries: Iterable[Entry]) -> dict[Scenario, list[Entry]]:
    shapes: dict[Scenario, list[Entry]] = defaultdict(list)
    for entry in entries:
        shapes[entry.scenario].append(entry)
    return {shape: shapes[shape] for shape in sorted(shapes)}


def _grouped_by(entries: Iterable[Entry], fact: str) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[str(entry.facts.get(fact, "unnamed"))].append(entry)
    return groups


def _distinct(entries: Iterable[Entry], fact: str) -> int:
    return len({entry.facts[fact] for entry in entries if fact in entry.facts and entry.figures})


def _figure_names(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry.figures))


def _spreads(shapes: dict[Scenario, list[Entry]], figure: str, factor: float = 1) -> dict[Scenario, dict[str, Spread]]:
    found = {shape: spreads(entries, figure) for shape, entries in shapes.items()}
    scaled = {s: {name: spread.scaled(factor) for name, spread in values.items()} for s, values in found.items()}
    return {shape: values for shape, values in scaled.items() if values}


def _against(
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


def _over_connections(
    shapes: dict[Scenario, list[Entry]], name: str, title: str, figure: str, caption: str, factor: float = 1,
    log_y: bool = False,
) -> list[Plot]:  # fmt: skip
    entries = [e for shape, found in shapes.items() if (shape.message_bytes, shape.depth) == (64, 1) for e in found]
    series: dict[str, list[tuple[float, Spread]]] = defaultdict(list)
    for shape, found in _by_scenario(entries).items():
        for contender, spread in spreads(found, figure).items():
            series[contender].append((float(shape.connections), spread.scaled(factor)))
    if not series:
        return []
    panel = Lines("", "connections", {n: series[n] for n in ordered(series)}, log_x=True, log_y=log_y)
    return [Plot(name, title, caption, _lines_drawer([panel]))]


def _bars(
    name: str, title: str, caption: str, values: dict[Scenario, dict[str, Spread]], baseline: float | None = None,
) -> list[Plot]:  # fmt: skip
    panels = [Bars(shape.title, found, baseline) for shape, found in values.items() if found]
    return [Plot(name, title, caption, _bars_drawer(panels))] if panels else []


def _bars_drawer(panels: Sequence[Bars]) -> Callable[[bool], Figure]:
    return lambda wide: draw_bars(panels, wide)


def _lines_drawer(panels: Sequence[Lines]) -> Callable[[bool], Figure]:
    return lambda wide: draw_lines(panels, wide)


def _by_shape(title: str, values: dict[Scenario, dict[str, Spread]], digits: int | None = None) -> Table:
    names = ordered(name for found in values.values() for name in found)
    return Table(
        title, [shape.title for shape in values],
        [(name, [found.get(name) for found in values.values()]) for name in names], digits,
    )  # fmt: skip


def _over_parameter(entries: Sequence[Entry], figure: str, fact: str, prefix: str = "") -> Table:
    label, factor = readable_unit(figure, spreads(entries, figure).values())
    places = sorted({e.facts[fact] for e in entries if fact in e.facts}) or [None]
    columns = {place: spreads((e for e in entries if e.facts.get(fact) == place), figure) for place in places}
    names = ordered(name for found in columns.values() for name in found)
    rows: list[tuple[str, list[Cell]]] = [
        (name, [found[name].scaled(factor) if name in found else None for found in columns.values()]) for name in names
    ]
    titles = [f"{place:,} {fact}" if isinstance(place, int) else "all" for place in places]
    return Table(f"{prefix}: {label}" if prefix else label, titles, rows)
