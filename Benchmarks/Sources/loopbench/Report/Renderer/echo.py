# SPDX-License-Identifier: Apache-2.0
"""Sections of `loopbench run`: against the floor, throughput, CPU, waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from figures import Section, bars_by_shape, by_scenario, over_connections, spreads_by_shape, table_by_shape
from results import Entry, Scenario, Spread, ratios
from style import floors, style


def echo_sections(entries: Sequence[Entry]) -> list[Section]:
    shapes = by_scenario(entries)
    if not shapes:
        return []
    return [_floor_section(shapes), _rate_section(shapes), _cost_section(shapes), _wait_section(shapes)]


def _floor_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    section = Section(
        "floor",
        "Against the floor",
        "A floor is a plain C server on the same kernel interface, with nothing between: the least a server can do "
        "there. 1 means as fast as that. This is the figure to look at, since both met the machine in the same mood.",
        shown=2,
    )
    rate, cost = (
        {shape: ratios(found, figure, floors(e.contender for e in found)) for shape, found in shapes.items()}
        for figure in ("requestsPerSecond", "serverMicrosecondsPerRequest")
    )
    section.plots += bars_by_shape(
        "rate-against-floor", "Requests per second over the floor’s",
        "Right of the line is faster than the floor. The mark is the median over the rounds, the line its range; a "
        "range that leaves the axis is cut there, and stands in the table.", rate, baseline=1,
    )  # fmt: skip
    section.tables += [
        table_by_shape("Requests per second / the floor’s, median and range", rate, digits=2),
        table_by_shape("CPU per request / the floor’s", cost, digits=2),
    ]
    ahead = {shape: _times_as_fast(found) for shape, found in shapes.items()}
    ahead = {shape: values for shape, values in ahead.items() if values}
    section.plots += bars_by_shape(
        "proactor-against-peers", "ProactorLoop’s rate over each peer’s",
        "How many times as many requests per second proactor async served as the peer named at the left, in the "
        "same round. Longer is better for us; below 1 the peer was faster.", ahead,
    )  # fmt: skip
    if ahead:
        section.tables.append(table_by_shape("Requests per second of proactor async / the peer’s", ahead, digits=2))
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
    section.plots += over_connections(
        shapes, "throughput", "Requests per second against connections", "requestsPerSecond",
        "64-byte messages, one in flight on each connection. Vertical lines are the range over the rounds.",
    )  # fmt: skip
    rates = spreads_by_shape(shapes, "requestsPerSecond")
    section.plots += bars_by_shape(
        "throughput-by-load", "Requests per second, by load",
        "Connections × message bytes; depth is how many messages are in flight on each connection.", rates,
    )  # fmt: skip
    section.tables.append(table_by_shape("Requests per second, median and range", rates))
    busy = spreads_by_shape(shapes, "serverBusyPercent")
    section.tables.append(table_by_shape("Server busy, percent of one CPU", busy))
    return section


def _cost_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    costs = spreads_by_shape(shapes, "serverMicrosecondsPerRequest")
    section = Section(
        "cpu",
        "CPU per request",
        "CPU time of the server process, all its threads, divided by the requests it served. Less is better. It counts "
        "the kernel's work on the server's behalf, which is most of it.",
    )
    section.plots += bars_by_shape(
        "cpu-per-request", "CPU microseconds per request", "Shorter is better. Note that each panel has its own scale.",
        costs,
    )  # fmt: skip
    section.tables.append(table_by_shape("CPU µs per request, median and range", costs))
    return section


def _wait_section(shapes: dict[Scenario, list[Entry]]) -> Section:
    section = Section(
        "latency",
        "Waiting",
        "Time from sending a message to having all of it back. In a closed loop this follows from throughput: 50 "
        "connections at 200,000 requests per second wait 250 µs by arithmetic. It does not say what a lightly loaded "
        "server would answer in. Percentiles are taken in each round; shown is the median over the rounds.",
    )
    section.plots += over_connections(
        shapes, "p99", "99th percentile against connections, µs", "latencyNanoseconds.p99",
        "Lower is better. 64-byte messages, one in flight on each connection; both axes are logarithmic.",
        factor=1e-3, log_y=True,
    )  # fmt: skip
    for figure, title in (("p99", "p99, µs, median and range"), ("p50", "p50, µs"), ("p999", "p99.9, µs")):
        values = spreads_by_shape(shapes, f"latencyNanoseconds.{figure}", 1e-3)
        section.tables += [table_by_shape(title, values)] if values else []
    return section
