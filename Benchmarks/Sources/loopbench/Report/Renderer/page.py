# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file that asks for nothing from outside, readable without scripts, in light, dark and on paper.

Plots stand in it as SVG whose colours are the page's variables, so that they follow its scheme, each twice: for a wide
window and for a narrow one; CSS shows one of the two.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from figures import Cell, Plot, Section, Table
from results import JSON, Results, Spread
from style import colours, number, style, words

_HERE = Path(__file__).parent


def page(results: Results, sections: list[Section]) -> str:
    """The whole file."""
    machine = results.machines[0] if results.machines else {}
    shell = (_HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "style": _variables() + (_HERE / "page.css").read_text(encoding="utf-8"),
        "subtitle": escape(_subtitle(results, machine)),
        "warnings": _warnings(results),
        "tiles": _tiles(sections),
        "contents": "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections),
        "sections": "\n".join(_section(section) for section in sections),
        "machine": _machines(results.machines, results.dates),
        "method": _method(results),
        "failures": _failures(results),
        "commands": _commands(results),
        "json": json.dumps(bundle(results), separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], shell)


def bundle(results: Results) -> Any:
    """What results.json holds: the one document, or all of them, unchanged."""
    return results.documents[0] if len(results.documents) == 1 else {"documents": results.documents}


# MARK: head


def _subtitle(results: Results, machine: JSON) -> str:
    dates = [date[:10] for date in results.dates]
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "date unknown"
    return f"Linux {machine.get('kernel', 'unknown')} · {machine.get('cpu', 'unknown CPU')} · " + (
        f"{machine.get('cores', '?')} CPUs · {when}"
    )


def _warnings(results: Results) -> str:
    warnings = [f"Made-up figures, for a test: {escape(text)}" for text in dict.fromkeys(results.fixtures)]
    if len(results.machines) > 1:
        warnings.append(
            f"These figures come from {len(results.machines)} different machines or kernels. Ratios within a round "
            "still hold; do not compare the others from section to section."
        )
    wrong = sum(entry.figures.get("mismatches", 0) > 0 for entry in results.entries["measurements"])
    if wrong:
        warnings.append(f"{wrong} measurements got wrong bytes back. Nothing here can be trusted until that is found.")
    return "".join(f'<p class="warning">{text}</p>' for text in warnings)


def _tiles(sections: list[Section]) -> str:
    """Our contenders' ranges of medians against the floor, from the tables of that section."""
    tables = [table for section in sections if section.name == "floor" for table in section.tables[:2]]
    if not tables:
        return ""
    tiles = []
    costs = dict(tables[1].rows)
    for name, cells in tables[0].rows:
        rate, cost = _range(cells), _range(costs.get(name, []))
        tiles.append(
            f'<li style="--own: var(--{style(name).colour.role})"><b>{escape(name)}</b><strong>{rate}</strong>'
            f"<span>its floor’s requests per second, for {cost} its CPU per request</span></li>"
        )
    note = '<p class="note">Lowest and highest of the medians under all loads.</p>'
    return f'<ul class="tiles">{"".join(tiles)}</ul>{note}'


def _range(cells: Iterable[Cell]) -> str:
    medians = [cell.median for cell in cells if isinstance(cell, Spread)]
    return f"{min(medians):.2f}–{max(medians):.2f}\u202f×" if medians else "–"


# MARK: sections


def _section(section: Section) -> str:
    plots = "\n".join(_figure(plot) for plot in section.plots)
    tables = [_table(table) for table in section.tables]
    shown, folded = "\n".join(tables[: section.shown]), "\n".join(tables[section.shown :])
    if folded:
        titles = [table.title for table in section.tables[section.shown :]]
        said = "; ".join(titles) if len(titles) <= 3 else f"{len(titles)} tables"
        shown += f"<details><summary>More figures: {escape(said)}</summary>{folded}</details>"
    return (
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>\n{_text(section.text)}\n{plots}\n{shown}'
        "</section>"
    )


def _text(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _figure(plot: Plot) -> str:
    label = escape(f"{plot.title}. {plot.caption}", quote=True)
    both = "".join(
        f'<div class="{kind}" role="img" aria-label="{label}">{inline_svg(plot.draw(kind == "wide"), plot.name + kind)}'
        "</div>"
        for kind in ("wide", "narrow")
    )
    files = f'<a href="{plot.name}.svg">SVG</a> <a href="{plot.name}.png">PNG</a>'
    return (
        f'<figure id="{plot.name}"><h3>{escape(plot.title)}</h3>{both}'
        f"<figcaption>{escape(plot.caption)} <small>{files}</small></figcaption></figure>"
    )


def inline_svg(figure: Figure, prefix: str) -> str:
    """SVG as part of HTML: its own ids, text as text, colours by variable, and no address of anything."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    for size in ("width", "height"):  # the page's
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"'DejaVu Sans'", "var(--sans)", svg)
    for colour in colours():
        svg = svg.replace(colour.light, f"var(--{colour.role})")
    return re.sub(r"\n\s*", "\n", svg)


def _table(table: Table) -> str:
    text = [any(isinstance(cells[i], str) and cells[i] for _, cells in table.rows) for i in range(len(table.columns))]
    head = "".join(
        f"<th{' class=text' if is_text else ''}>{escape(column)}</th>" for column, is_text in zip(table.columns, text)
    )
    rows = "".join(
        f'<tr class="{style(name).kind}"><th style="--own: var(--{style(name).colour.role})">{escape(name)}</th>'
        + "".join(_cell(cell, table.digits) for cell in cells)
        + "</tr>"
        for name, cells in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(table.title)}</caption>'
        f"<thead><tr><th>contender</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Cell, digits: int | None) -> str:
    if cell is None or cell == "":
        return "<td>–</td>"
    if isinstance(cell, Spread):
        middle = number(cell.median, digits)
        if cell.low == cell.high:
            return f"<td>{middle}</td>"
        return f"<td>{middle}<small>{number(cell.low, digits)}..{number(cell.high, digits)}</small></td>"
    if isinstance(cell, str):
        return f'<td class="text">{escape(cell)}</td>'
    return f"<td>{number(cell, digits)}</td>"


# MARK: machine, method, commands


def _machines(machines: list[JSON], dates: list[str]) -> str:
    lists = []
    for machine in machines:
        pinning = machine.get("pinning") or {}
        facts: list[tuple[str, str]] = [
            ("kernel", f"Linux {machine.get('kernel', 'unknown')}"),
            ("processor", f"{machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} CPUs"),
            ("pinning", _pinning(pinning)),
        ]
        told = ("kernel", "cpu", "cores", "pinning", "date")
        rest = {name: value for name, value in machine.items() if name not in told}
        versions = rest.pop("versions", None) or {}
        facts += [(_fact_name(name), _fact(value)) for name, value in sorted(rest.items()) if value is not None]
        facts += [(name, str(value)) for name, value in sorted(versions.items())]
        lists.append(facts)
    if lists and dates:
        lists[0].append(("measured", ", ".join(date.replace("T", " ").replace("Z", " UTC") for date in dates)))
    return "".join(
        "<dl>" + "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in facts) + "</dl>"
        for facts in lists
    )


def _fact_name(name: str) -> str:
    return {"isVirtual": "virtual machine", "loadAverage": "load before"}.get(name, words(name))


def _fact(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _pinning(pinning: JSON) -> str:
    server, generator = pinning.get("server"), pinning.get("generator")
    if server is None or generator is None:
        return "nothing pinned: server and load generator disturb each other"
    return f"server on CPU {server}, load generator on CPU {generator}"


def _method(results: Results) -> str:
    """Only what this page's data says of itself."""
    entries = results.entries["measurements"]
    sentences = []
    if entries:
        rounds = len({entry.round for entry in entries})
        measured = [e.figures["measuredNanoseconds"] / 1e9 for e in entries if "measuredNanoseconds" in e.figures]
        seconds = f", about {median(measured):.2g} seconds each" if measured else ""
        loads = len({entry.scenario for entry in entries})
        contenders = len({entry.contender for entry in entries})
        sentences.append(
            f"<li><b>{rounds} rounds</b> of {contenders} contenders under {loads} loads{seconds}: "
            f"{len(entries)} measurements.</li>"
        )
    names = {"counts": "counts", "growth": "growth", "loop": "the rest of a loop"}
    for section, name in names.items():
        if results.entries[section]:
            rounds = len({entry.round for entry in results.entries[section]})
            sentences.append(
                f"<li>{name.capitalize()}: {len(results.entries[section])} entries"
                + (f" from {rounds} rounds" if rounds > 1 else "") + ".</li>"
            )  # fmt: skip
    return "".join(sentences)


def _failures(results: Results) -> str:
    if not results.failures:
        return ""
    rows = "".join(f"<li>{escape(sentence)}</li>" for sentence in results.failures)
    return f'<h3 id="failures">What could not be measured</h3><ul>{rows}</ul>'


def _commands(results: Results) -> str:
    names = {"measurements": "run", "counts": "counts", "growth": "grow", "loop": "loop"}
    lines = []
    for document in results.documents:
        command = document.get("command")
        if command:
            lines.append(command if isinstance(command, str) else shlex.join(map(str, command)))
        else:
            lines += [f"loopbench {names[s]} --json FILE" for s in names if document.get(s)]
    return "\n".join(escape(line) for line in dict.fromkeys(lines))


def _variables() -> str:
    def block(values: Iterable[tuple[str, str]]) -> str:
        return "".join(f"--{role}:{value};" for role, value in values)

    light = block((colour.role, colour.light) for colour in colours())
    dark = block((colour.role, colour.dark) for colour in colours())
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme: dark){{:root{{color-scheme:dark;{dark}}}}}\n"
    )
