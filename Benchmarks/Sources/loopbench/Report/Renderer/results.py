# SPDX-License-Identifier: Apache-2.0
"""What loopbench wrote, read back: JSON documents, and the medians and ranges a page shows of them.

Owns the shapes of the JSON. A section that is absent is empty, a field nobody here knows is carried along, and a
document this program wrote earlier (several documents in one file) is read like its parts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

JSON = dict[str, Any]

SECTIONS = ("measurements", "counts", "growth", "loop")

# Numbers that say what was done rather than what came out.
PARAMETERS = ("round", "connections", "messageBytes", "depth", "pending", "threads")


class Unreadable(Exception):
    """A file that is not one of ours, in a sentence for the user."""


@dataclass(frozen=True)
class Spread:
    """Median and range of a handful of values."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread | None:
        found = sorted(values)
        return Spread(median(found), found[0], found[-1]) if found else None

    def scaled(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, order=True)
class Scenario:
    """One shape of load, in the order tables show them: small messages first, then deep, then large."""

    message_bytes: int
    depth: int
    connections: int

    @staticmethod
    def read(entry: JSON) -> Scenario:
        return Scenario(
            int(entry.get("messageBytes", 64)), int(entry.get("depth", 1)), int(entry.get("connections", 1))
        )

    @property
    def title(self) -> str:
        size = f"{self.message_bytes} B" if self.message_bytes < 1024 else f"{self.message_bytes / 1024:g} KiB"
        deep = f", depth {self.depth}" if self.depth > 1 else ""
        return f"{self.connections:,} × {size}{deep}"


@dataclass(frozen=True)
class Entry:
    """One contender in one round: of `run` in a scenario, of `grow` and `loop` with their own parameters."""

    contender: str
    round: tuple[int, int]  # which document, which round of it: rounds of two runs are not one round
    facts: JSON  # parameters and names
    figures: dict[str, float]  # numbers that were measured, nested ones by a dotted name
    failure: str | None

    @property
    def scenario(self) -> Scenario:
        return Scenario.read(self.facts)


@dataclass
class Results:
    """All documents of one page together."""

    documents: list[JSON]
    entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    @staticmethod
    def load(paths: Iterable[Path]) -> Results:
        documents = [document for path in paths for document in _documents(path)]
        results = Results(documents)
        for index, document in enumerate(documents):
            for section in SECTIONS:
                for raw in document.get(section) or []:
                    results.entries[section].append(_entry(raw, index))
        return results

    @property
    def machines(self) -> list[JSON]:
        """Each machine once; date and load differ from document to document and do not make another machine."""
        distinct: dict[tuple[str, ...], JSON] = {}
        for document in self.documents:
            machine = document.get("machine") or {}
            key = tuple(str(machine.get(name)) for name in ("kernel", "cpu", "cores", "pinning"))
            distinct.setdefault(key, machine)
        return list(distinct.values())

    @property
    def dates(self) -> list[str]:
        return sorted({str(d["machine"]["date"]) for d in self.documents if "date" in (d.get("machine") or {})})

    @property
    def fixtures(self) -> list[str]:
        """What says of itself that it was made up, for a test."""
        return [str(document["fixture"]) for document in self.documents if document.get("fixture")]

    @property
    def failures(self) -> list[str]:
        """One sentence per contender and reason."""
        times: dict[tuple[str, str, str], int] = defaultdict(int)
        for section, entries in self.entries.items():
            for entry in entries:
                if entry.failure:
                    times[section, entry.contender, entry.failure] += 1
        names = {"measurements": "run", "growth": "grow"}
        return [
            f"{contender}, {names.get(section, section)}: {reason}" + (f" ({count} times)" if count > 1 else "")
            for (section, contender, reason), count in times.items()
        ]


def _documents(path: Path) -> Iterator[JSON]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Unreadable(f"{path} is not JSON: {error}") from error
    documents = loaded.get("documents", [loaded]) if isinstance(loaded, dict) else []
    for document in documents:
        if not any(isinstance(document.get(section), list) for section in SECTIONS):
            continue
        yield document
    if not any(section in document for document in documents for section in SECTIONS):
        raise Unreadable(f"{path} has none of {', '.join(SECTIONS)}: was it written by loopbench --json?")


def _entry(raw: JSON, document: int) -> Entry:
    facts: JSON = dict(raw.get("scenario") or {})
    figures: dict[str, float] = {}
    for name, value in _flat({name: value for name, value in raw.items() if name != "scenario"}):
        bare = name.removeprefix("figures.")
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, (int, float)) and bare not in PARAMETERS:
            figures[bare] = float(value)
        else:
            facts[bare] = value
    failure = raw.get("failure")
    return Entry(
        contender=str(raw.get("contender", "unnamed")),
        round=(document, int(raw.get("round", 1))),
        facts=facts,
        figures=figures | _derived(figures),
        failure=str(failure) if failure else None,
    )


def _flat(value: JSON, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _derived(figures: dict[str, float]) -> dict[str, float]:
    """The figures `loopbench run` prints, from the ones it keeps."""
    derived: dict[str, float] = {}
    echoes, time = figures.get("echoes"), figures.get("measuredNanoseconds")
    if echoes and time and "requestsPerSecond" not in figures:
        derived["requestsPerSecond"] = echoes * 1e9 / time
    server = figures.get("serverNanoseconds")
    if echoes and server is not None:
        derived["serverMicrosecondsPerRequest"] = server / 1e3 / echoes
        if time:
            derived["serverBusyPercent"] = server / time * 100
    return derived


def spreads(entries: Iterable[Entry], figure: str) -> dict[str, Spread]:
    """Median and range over the rounds, per contender."""
    values: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        if figure in entry.figures:
            values[entry.contender].append(entry.figures[figure])
    return {name: spread for name, found in values.items() if (spread := Spread.of(found))}


def ratios(entries: Iterable[Entry], figure: str, baseline: dict[str, str]) -> dict[str, Spread]:
    """Each round's figure over the same round's figure of the contender's baseline, then median and range."""
    by_round: dict[tuple[str, tuple[int, int]], float] = {
        (entry.contender, entry.round): entry.figures[figure] for entry in entries if figure in entry.figures
    }
    values: dict[str, list[float]] = defaultdict(list)
    for (name, round), value in by_round.items():
        base = by_round.get((baseline.get(name, ""), round))
        if base:
            values[name].append(value / base)
    return {name: spread for name, found in values.items() if (spread := Spread.of(found))}
