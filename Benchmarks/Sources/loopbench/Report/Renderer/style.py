# SPDX-License-Identifier: Apache-2.0
"""Which colour, mark and line belongs to whom, and the words and numbers of axes and tables.

A hue is a kernel interface: blue is io_uring, orange is epoll. Ours are strong, floors are dashed, peers are muted
and thin. Marks differ as well, so nothing depends on seeing colours. A name nobody here knows gets a style from its
spelling, the same on every page. On the page each colour is a CSS variable, since light and dark differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from results import Spread


@dataclass(frozen=True)
class Colour:
    """A colour by its role. Its light value is what plots are drawn with, and is unique among all."""

    role: str
    light: str
    dark: str


INK = Colour("ink", "#1b1f24", "#e8eaed")
QUIET = Colour("quiet", "#5c6470", "#a3abb7")
GRID = Colour("grid", "#e3e6ea", "#30363f")
PAPER = Colour("paper", "#fefefe", "#14171b")


@dataclass(frozen=True)
class Style:
    colour: Colour
    marker: str
    kind: str  # ours, floor or peer

    @property
    def line(self) -> tuple[float, str]:
        return {"ours": (2.2, "-"), "floor": (1.6, "--"), "peer": (1.1, "-")}[self.kind]


def _style(kind: str, role: str, light: str, dark: str, marker: str) -> Style:
    return Style(Colour(role, light, dark), marker, kind)


# In the order reports list them.
KNOWN: dict[str, Style] = {
    "proactor async": _style("ours", "proactor-async", "#0b57c4", "#5b9dff", "o"),
    "proactor callback": _style("ours", "proactor-callback", "#57a5ee", "#a9d0ff", "s"),
    "floor io_uring": _style("floor", "floor-io-uring", "#10294f", "#8fa9d6", "D"),
    "selector async": _style("ours", "selector-async", "#c8420a", "#ff8247", "o"),
    "selector callback": _style("ours", "selector-callback", "#f09a3e", "#ffc583", "s"),
    "floor libev": _style("floor", "floor-libev", "#5a2407", "#d1a585", "D"),
    "nio handlers": _style("peer", "nio-handlers", "#6f539c", "#ac93d6", "^"),
    "nio async channel": _style("peer", "nio-async", "#9a80c0", "#8c72b8", "v"),
    "nio async channel, takeover": _style("peer", "nio-takeover", "#b7a3d3", "#c9b8e6", "<"),
    "libuv": _style("peer", "libuv", "#4d8061", "#7fb894", ">"),
    "asio epoll": _style("peer", "asio-epoll", "#83872f", "#b6ba62", "P"),
    "asio io_uring": _style("peer", "asio-io-uring", "#2f8782", "#63bab5", "X"),
    "tokio": _style("peer", "tokio", "#91545f", "#cf919c", "p"),
    "go": _style("peer", "go", "#3d8aa8", "#72b9d4", "h"),
    "asyncio": _style("peer", "asyncio", "#8b8f94", "#8a8f96", "d"),
    "uvloop": _style("peer", "uvloop", "#63676d", "#b5bac1", "*"),
}

# `loopbench loop` measures loops without an echo, and so without a choice of API.
KNOWN |= {
    "proactor": KNOWN["proactor async"],
    "selector": KNOWN["selector async"],
    "nio": KNOWN["nio handlers"],
    "nio callback": KNOWN["nio async channel"],
    "nio takeover": KNOWN["nio async channel, takeover"],
    "global executor": _style("peer", "global-executor", "#7d6f3c", "#c0b078", "h"),
}

SPARE = tuple(
    _style("peer", f"spare-{index}", light, dark, marker)
    for index, (light, dark, marker) in enumerate(
        [
            ("#3a6a7a", "#74b0c2", "^"),
            ("#4f6f8f", "#86aacf", "v"),
            ("#8f4f7f", "#cf8abf", "<"),
            ("#3f7f5f", "#78bd9a", ">"),
            ("#7f5f4f", "#c09c8a", "P"),
            ("#5f5f8f", "#9c9cd0", "X"),
        ]
    )
)

# System calls, stacked by name: Okabe and Ito's set, made for every kind of colour vision.
STACK = {
    "io_uring_enter": Colour("call-enter", "#0173b2", "#3f9fdc"),
    "epoll_wait": Colour("call-wait", "#e69f01", "#e9b548"),
    "recv": Colour("call-receive", "#029e73", "#3cc49c"),
    "send": Colour("call-send", "#d55e01", "#ee8642"),
    "epoll_ctl": Colour("call-control", "#cc78bd", "#d796cb"),
    "futex": Colour("call-futex", "#949494", "#a9a9a9"),
    "other": Colour("call-other", "#56b4e8", "#8ad0f5"),
}
_STACK_NAMES = {
    "recvfrom": "recv", "recvmsg": "recv", "read": "recv", "readv": "recv", "recvmmsg": "recv",
    "sendto": "send", "sendmsg": "send", "write": "send", "writev": "send", "sendmmsg": "send",
    "epoll_pwait": "epoll_wait", "epoll_pwait2": "epoll_wait", "poll": "epoll_wait", "select": "epoll_wait",
}  # fmt: skip


def style(contender: str) -> Style:
    if contender in KNOWN:
        return KNOWN[contender]
    if contender.startswith("floor"):
        return Style(INK, "D", "floor")
    return SPARE[crc32(contender.encode()) % len(SPARE)]


def call_group(name: str) -> str:
    """The group of a system call. Reading and writing have many names that say the same about a server."""
    group = _STACK_NAMES.get(name, name)
    return group if group in STACK else "other"


def colours() -> list[Colour]:
    known = [each.colour for each in (*KNOWN.values(), *SPARE)]
    return list(dict.fromkeys([INK, QUIET, GRID, PAPER, *known, *STACK.values()]))


def ordered(contenders: Iterable[str]) -> list[str]:
    """Ours and their floors, then peers, then whoever is new, as they appeared."""
    known = list(KNOWN)
    seen = list(dict.fromkeys(contenders))
    return sorted(seen, key=lambda name: (known.index(name) if name in KNOWN else len(known), seen.index(name)))


def floors(contenders: Iterable[str]) -> dict[str, str]:
    """The plain C server on the same kernel interface as one of our loops."""
    pairs = {name: "floor io_uring" if name.startswith("proactor") else "floor libev" for name in contenders}
    return {name: floor for name, floor in pairs.items() if name.startswith(("proactor", "selector"))}


# MARK: words and numbers


def words(name: str) -> str:
    """`userBytesPerConnection` as a person would say it."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace(".", " "))
    return spaced.lower()


def number(value: float, digits: int | None = None) -> str:
    """Three digits that matter, or so many behind the point; thousands are grouped; what is exactly nothing is 0."""
    if digits is not None:
        return f"{value:,.{digits}f}"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.0005:
        return f"{value:.2f}" if size >= 1 else f"{value:.3f}"
    return "<0.001" if value > 0 else ">-0.001"


def short(value: float) -> str:
    """Three digits, as short as the end of a bar wants it."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 100 else f"{scaled:.1f}{unit}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:#.3g}"
    return f"{value:.3f}".rstrip("0") if abs(value) >= 0.0005 else "<0.001"


def tick(value: float) -> str:
    """The same for an axis, whose values are round."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def readable_unit(name: str, values: Iterable[Spread]) -> tuple[str, float]:
    """A figure's name in words with the unit that fits its size, and what to multiply by."""
    smallest = min((each.median for each in values if each.median > 0), default=0)
    label = words(name)
    if "nanoseconds" in label or re.search(r"\bns\b", label):
        for limit, unit, factor in ((1e7, "ms", 1e-6), (1e4, "µs", 1e-3), (0, "ns", 1)):
            if smallest >= limit:
                return re.sub(r"nanoseconds|\bns\b", unit, label), factor
    if "microseconds" in label:
        return label.replace("microseconds", "µs"), 1
    if "bytes" in label and smallest >= 1 << 20:
        return label.replace("bytes", "MiB"), 1 / (1 << 20)
    if "bytes" in label and smallest >= 64 << 10:
        return label.replace("bytes", "KiB"), 1 / 1024
    return label, 1
