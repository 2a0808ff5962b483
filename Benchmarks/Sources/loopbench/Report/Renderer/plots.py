# SPDX-License-Identifier: Apache-2.0
"""The three kinds of plot, drawn by matplotlib: lines, bars (or dots) by contender, and stacked bars.

Owns how a plot looks; what it shows is the caller's. Each is drawn for a wide page and again, one panel below the
other, for a narrow one. No pyplot: a Figure is made, saved and forgotten, and no display is asked for.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
)

from results import Spread
from style import GRID, INK, PAPER, QUIET, STACK, ordered, short, style, tick

WIDE_INCHES = 10.4
NARROW_INCHES = 4.0
ROW_INCHES = 0.235

matplotlib.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so measures are the same everywhere
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlecolor": INK.light,
        "axes.labelcolor": QUIET.light,
        "axes.edgecolor": GRID.light,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.facecolor": "none",
        "grid.color": GRID.light,
        "grid.linewidth": 0.8,
        "text.color": INK.light,
        "xtick.color": GRID.light,
        "ytick.color": GRID.light,
        "xtick.labelcolor": QUIET.light,
        "ytick.labelcolor": QUIET.light,
        "legend.frameon": False,
    }
)


@dataclass(frozen=True)
class Lines:
    """Medians over a number that grows, with their ranges."""

    title: str
    x_label: str
    series: dict[str, list[tuple[float, Spread]]]
    log_x: bool = True
    log_y: bool = False


@dataclass(frozen=True)
class Bars:
    """One bar per contender, or one dot, with its range."""

    title: str
    values: dict[str, Spread]
    baseline: float | None = None  # dots left and right of a line, instead of bars from zero
    least: float = 0  # the axis reaches as far, so that next to nothing looks like it


@dataclass(frozen=True)
class Stack:
    """One bar per contender, made of parts that have names."""

    title: str
    parts: dict[str, dict[str, float]]


# MARK: lines


def draw_lines(panels: Sequence[Lines], wide: bool) -> Figure:
    columns = min(len(panels), 2) if wide else 1
    rows = math.ceil(len(panels) / columns)
    names = ordered(name for panel in panels for name in panel.series)
    width = WIDE_INCHES if wide else NARROW_INCHES
    most = max(len(panel.series) for panel in panels)
    height = max(4.3 if columns == 1 and wide else 3.3, 0.19 * most + 0.9 if wide else 0)
    legend = 0 if wide else 0.19 * math.ceil(len(names) / 2) + 0.15
    figure, axes = _grid(rows, columns, width, rows * height, below=legend)
    for axis, panel in zip(axes, panels):
        _lines(axis, panel, label_inches=height - 0.85 if wide else None)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if not wide:
        handles = {line.get_label(): line for axis in axes for line in axis.get_lines()}
        figure.legend([handles[name] for name in names], names, loc="lower left", ncols=2, fontsize=8, handlelength=2.4)
    return figure


def _grid(
    rows: int, columns: int, width: float, height: float, below: float, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Axes with room for a legend below them, which covers no data there."""
    figure = Figure(figsize=(width, height + below), layout="constrained")
    share = below / (height + below)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat)


def _lines(axis: Axes, panel: Lines, label_inches: float | None) -> None:
    for index, (name, points) in enumerate(panel.series.items()):
        look = style(name)
        width, dashes = look.line
        xs = [x for x, _ in points]
        middle = [spread.median for _, spread in points]
        axis.plot(
            xs, middle, label=name, color=look.colour.light, linewidth=width, linestyle=dashes, marker=look.marker,
            markersize=6 if look.kind == "ours" else 4.5, markeredgecolor=PAPER.light, markeredgewidth=0.7,
            zorder=4 if look.kind == "ours" else 3,
        )  # fmt: skip
        lows = [spread.low for _, spread in points]
        highs = [spread.high for _, spread in points]
        # Ranges stand a little apart, since those of all contenders belong to the same x.
        apart = 1 + 0.012 * (index - len(panel.series) / 2) if panel.log_x else 1
        axis.vlines([x * apart for x in xs], lows, highs, color=look.colour.light, linewidth=1, alpha=0.5, zorder=2)
    _scales(axis, panel)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label, loc="left")
    if label_inches:
        _label_ends(axis, panel, label_inches)


def _scales(axis: Axes, panel: Lines) -> None:
    places = sorted({x for points in panel.series.values() for x, _ in points})
    plain = FuncFormatter(lambda value, _: tick(value))
    if panel.log_x:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value) if value >= 10_000 else f"{value:,.0f}"))
    axis.grid(axis="x", visible=False)
    values = [value for points in panel.series.values() for _, spread in points for value in (spread.low, spread.high)]
    if panel.log_y and min(values) > 0:
        axis.set_yscale("log")
        low, high = min(values) / 1.3, max(values) * 1.3
        axis.set_ylim(low, high)
        steps = (1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0)
        axis.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.set_ylim(0, (max(values) or 1) * 1.06)
        axis.yaxis.set_major_locator(MaxNLocator(6))
    axis.yaxis.set_major_formatter(plain)


def _label_ends(axis: Axes, panel: Lines, inches: float) -> None:
    """Names at the lines' ends instead of a legend, moved apart where lines end close together."""
    to_fraction = axis.transData + axis.transAxes.inverted()
    ends = {name: to_fraction.transform((points[-1][0], points[-1][1].median)) for name, points in panel.series.items()}
    names = sorted(ends, key=lambda name: ends[name][1])
    last = max(points[-1][0] for points in panel.series.values())
    heights = spread_apart([float(ends[name][1]) for name in names], gap=0.165 / inches)
    for name, height in zip(names, heights):
        look = style(name)
        x, y = ends[name]
        reached = panel.series[name][-1][0]
        if reached == last:
            axis.plot(
                [x, 1.02, 1.035], [y, height, height], transform=axis.transAxes, clip_on=False,
                color=look.colour.light, linewidth=0.7, alpha=0.7, label="_connector",
            )  # fmt: skip
        note = "" if reached == last else f", up to {reached:,.0f}"
        axis.text(
            1.042, height, name + note, transform=axis.transAxes, va="center", fontsize=8.5,
            color=look.colour.light if look.kind == "ours" else INK.light if look.kind == "floor" else QUIET.light,
            fontweight="bold" if look.kind == "ours" else "normal",
        )  # fmt: skip


def spread_apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Places as close as possible to the wanted ones (ascending), at least `gap` apart, best within 0...1.

    Neighbours that are too close become one block, centred where its members wanted to be, until no block touches.
    """
    blocks: list[tuple[list[float], float]] = []  # members, lowest place

    def place(members: list[float]) -> tuple[list[float], float]:
        lowest = sum(want - index * gap for index, want in enumerate(members)) / len(members)
        return members, max(0.0, min(lowest, 1.0 - gap * (len(members) - 1)))

    for want in wanted:
        block = place([want])
        while blocks and blocks[-1][1] + gap * len(blocks[-1][0]) > block[1]:
            block = place(blocks.pop()[0] + block[0])
        blocks.append(block)
    return [lowest + index * gap for members, lowest in blocks for index in range(len(members))]


# MARK: bars, dots, stacks


def draw_bars(panels: Sequence[Bars], wide: bool) -> Figure:
    names = ordered(name for panel in panels for name in panel.values)
    titles = [panel.title for panel in panels]
    longest = max(map(len, titles))
    figure, axes = _rows_of(names, titles, wide, columns_max=5 if longest < 20 else 4)
    for axis, panel in zip(axes, panels):
        _bars(axis, panel, names)
    _around_baselines(axes, panels)
    return figure


def draw_stacks(panels: Sequence[Stack], wide: bool) -> Figure:
    names = ordered(name for panel in panels for name in panel.parts)
    all_parts = [parts for panel in panels for parts in panel.parts.values()]
    # What could not be seen needs no entry in the legend.
    groups = [group for group in STACK if any(parts.get(group, 0) > sum(parts.values()) / 200 for parts in all_parts)]
    figure, axes = _rows_of(names, [panel.title for panel in panels], wide, below=0.4, columns_max=3)
    for axis, panel in zip(axes, panels):
        highest = max((sum(parts.values()) for parts in panel.parts.values()), default=0)
        for place, name in enumerate(names):
            left = 0.0
            for group in groups:
                width = panel.parts.get(name, {}).get(group, 0)
                axis.barh(place, width, left=left, height=0.66, color=STACK[group].light)
                left += width
            if name in panel.parts:
                _value(axis, left, place, left, highest)
        axis.set_xlim(0, (highest or 1) * 1.2)
    handles = [Patch(color=STACK[group].light, label=_call_label(group)) for group in groups]
    figure.legend(handles=handles, loc="lower left", ncols=len(groups) if wide else 2, fontsize=8.5, handlelength=1.1)
    return figure


def _call_label(group: str) -> str:
    return {"recv": "receiving (recv, read, …)", "send": "sending (send, write, …)"}.get(group, group)


def _rows_of(
    names: Sequence[str], titles: Sequence[str], wide: bool, below: float = 0, columns_max: int = 5
) -> tuple[Figure, list[Axes]]:
    """Panels with one row per contender, whose names stand once, at the left."""
    count = len(titles)
    columns = min(count, columns_max) if wide else 1
    rows = math.ceil(count / columns)
    height = rows * (ROW_INCHES * len(names) + 0.72)
    width = WIDE_INCHES if wide else NARROW_INCHES
    figure, axes = _grid(rows, columns, width, height, below=below if wide else below * 1.6, share_y=True)
    for index, axis in enumerate(axes):
        if index >= count:
            axis.set_axis_off()
            continue
        axis.set_title(textwrap.fill(titles[index], 24 if wide else 60))
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="y", visible=False)
        axis.tick_params(length=0, labelsize=8)
        axis.spines["bottom"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        for label, name in zip(axis.get_yticklabels(), names):
            kind = style(name).kind
            label.set(
                color=QUIET.light if kind == "peer" else INK.light,
                fontweight="bold" if kind == "ours" else "normal", fontsize=8.5,
            )  # fmt: skip
    return figure, axes[:count]


def _bars(axis: Axes, panel: Bars, names: Sequence[str]) -> None:
    highest = max([panel.least, *(spread.high for spread in panel.values.values())])
    for place, name in enumerate(names):
        spread = panel.values.get(name)
        if spread is None:
            continue
        look = style(name)
        colour = look.colour.light
        if panel.baseline is not None:
            axis.hlines(place, spread.low, spread.high, color=colour, linewidth=2.2, alpha=0.55)
            axis.plot(
                spread.median, place, marker=look.marker, color=colour, markersize=7, markeredgecolor=PAPER.light,
                markeredgewidth=0.8,
            )  # fmt: skip
            continue
        floor = look.kind == "floor"
        axis.barh(
            place, spread.median, height=0.66, facecolor="none" if floor else colour, edgecolor=colour,
            linestyle="--" if floor else "-", linewidth=1.1 if floor else 0, alpha=None if look.kind != "peer" else 0.8,
        )  # fmt: skip
        if spread.high > spread.low:
            axis.hlines(place, spread.low, spread.high, color=INK.light, linewidth=1, alpha=0.7)
        _value(axis, spread.high, place, spread.median, highest)
    if panel.baseline is None:
        axis.set_xlim(0, (highest or 1) * 1.3)
    else:
        axis.axvline(panel.baseline, color=QUIET.light, linewidth=1, zorder=1)


def _around_baselines(axes: Sequence[Axes], panels: Sequence[Bars]) -> None:
    """One scale for all, wide enough for every median: one wild round must not press the others onto the line."""
    away = [abs(spread.median - p.baseline) for p in panels if p.baseline is not None for spread in p.values.values()]
    for axis, panel in zip(axes, panels):
        if panel.baseline is not None:
            reach = max(0.25, max(away) * 1.25)
            axis.set_xlim(panel.baseline - reach, panel.baseline + reach)
            axis.xaxis.set_major_locator(MultipleLocator(0.1 if reach < 0.3 else 0.2 if reach < 0.6 else 0.5))


def _value(axis: Axes, x: float, place: float, value: float, highest: float) -> None:
    axis.text(x + (highest or 1) * 0.03, place, short(value), va="center", fontsize=8, color=QUIET.light)
