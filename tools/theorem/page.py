"""Writes what the audit found as report.md and as one self-contained page, report.html.

Not here: judging. Everything on the pages comes from the runs and from the tables in tests/audit.
"""

import json
from collections import Counter
from html import escape
from pathlib import Path

from tools.theorem import theorem
from tools.theorem.compare import EXPLAINED, SAME, UNEXPLAINED, VOLATILE
from tools.theorem.space import BadTable, Space
from tools.theorem.theorem import Instruction, Report

COLUMNS = ("encoding", "", "name", "class", "kept in the VM by", "traps", "EL1, bare", "EL1, VM", "EL0, bare",
           "EL0, VM", "verdict")
VERDICTS = (SAME, VOLATILE, EXPLAINED, UNEXPLAINED)
KEPT = ("trapped", "banked", "innocuous", "not there")

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1300px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
th { text-align: left; position: sticky; top: 0; background: #fff }
td, th { border-bottom: 1px solid #ddd; padding: 2px 8px; vertical-align: top } td.n { text-align: right }
code { font-size: 12px; overflow-wrap: anywhere } summary { cursor: pointer; font-weight: 600; margin: .6em 0 }
svg { width: 100%; height: auto } svg text { font: 9px system-ui, sans-serif; fill: #555 }
.panel { fill: #ececec }
.key { display: inline-block; width: 1em; height: 1em; vertical-align: -2px; margin: 0 .3em 0 1em }
.same, .innocuous { fill: #2a9d5c; background: #2a9d5c } .volatile { fill: #4a7fd4; background: #4a7fd4 }
.explained { fill: #e9a23b; background: #e9a23b } .UNEXPLAINED { fill: #d7263d; background: #d7263d }
.trapped { fill: #6a4c93; background: #6a4c93 } .banked { fill: #1982c4; background: #1982c4 }
.absent { fill: #b9a27c; background: #b9a27c } .undefined { background: #ececec }
"""
# A panel of the map: CRm and op2 across, CRn down; cells in units of the picture.
CELL_WIDTH, CELL_HEIGHT, GAP, TITLE = 3, 4, 10, 12


def told(outcome: tuple[str, ...]) -> str:
    """Says what came of an access."""
    return "; ".join(outcome) or "UNDEFINED"


def kept(space: Space, it: Instruction) -> str:
    """Says in one word what keeps an instruction in the VM."""
    how = theorem.mechanism(space, it)
    if how.startswith(("trapped", "banked", "not there")):
        return "not there" if how.startswith("not") else how.split(":")[0]
    return "innocuous"


def rows(space: Space, report: Report) -> list[tuple[str, ...]]:
    """Lists what is known of each instruction, as COLUMNS has it."""
    return [(str(it.encoding), it.direction, it.name, theorem.paper_class(space, it), theorem.mechanism(space, it),
             str(it.trapped or ""), *(told(it.outcome(world, level)) for level in (1, 0) for world in ("bare", "vm")),
             it.verdict) for it in report.instructions]


def summary(space: Space, reports: list[Report]) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and rows of the table of machines."""
    heads = ["machine", "probes in each world", *VERDICTS, "sensitive instructions", *KEPT[:2], "not there",
             "exits of the VM", "seconds, bare and VM"]
    lines = []
    for report in reports:
        ways = Counter(kept(space, it) for it in theorem.present(report)
                       if theorem.sensitivity(space, it) != theorem.INNOCUOUS)
        lines.append([str(report.machine), f"{report.probes:,}", *(str(report.count(verdict)) for verdict in VERDICTS),
                      str(sum(ways.values())), *(str(ways[way]) for way in ("trapped", "banked", "not there")),
                      f"{report.exits:,}", f"{report.seconds[0]:.1f}, {report.seconds[1]:.1f}"])
    return heads, lines


def classes(space: Space, report: Report) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and rows of the table of the paper's classes: instructions by class and what keeps them."""
    table = Counter((theorem.paper_class(space, it), kept(space, it)) for it in theorem.present(report))
    names = sorted({name for name, _ in table})
    return ["class", *KEPT, "all"], [[name, *(str(table[(name, way)]) for way in KEPT),
                                      str(sum(table[(name, way)] for way in KEPT))] for name in names]


def differences(space: Space, reports: list[Report]) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and rows of the table of what differs, and why; machines that differ alike share a row."""
    found: dict[tuple[str, ...], list[str]] = {}
    for report in reports:
        for it in report.instructions:
            for level, at in sorted(it.at.items()):
                if at.verdict in (EXPLAINED, UNEXPLAINED):
                    why = at.explanation
                    key = (f"{it.name} {it.direction}", f"EL{level}", told(at.bare), told(at.vm), at.verdict,
                           why.reason if why else "", why.section if why else "")
                    found.setdefault(key, []).append(str(report.machine))
    heads = ["access", "level", "bare", "VM", "verdict", "reason", "section", "machines"]
    return heads, [[*key, "; ".join(machines)] for key, machines in found.items()]


# --- Markdown -------------------------------------------------------------------------------------------------------

def table(heads: list[str], lines: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    def clean(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")
    whole = (heads, ["---"] * len(heads), *lines)
    return "".join("| " + " | ".join(map(clean, line)) + " |\n" for line in whole)


def markdown(space: Space, reports: list[Report], complaints: list[str]) -> str:
    """Returns the report in Markdown."""
    parts = ["# Every system instruction, on the bare machine and in a VM\n", table(*summary(space, reports)),
             "\n".join(["## Complaints\n", *(f"- {line}" for line in complaints)]) if complaints else "No complaints.",
             "\n## Differences\n", table(*differences(space, reports))]
    for report in reports:
        parts += [f"\n## {report.machine}\n", table(*classes(space, report)),
                  table(list(COLUMNS), [list(row) for row in rows(space, report)])]
    return "\n".join(parts) + "\n"


# What EL2's shares are of, by the key of the figure.
SHARES = {"boot-share": "Debian's boot to init, from the guest's first instruction",
          "compute-share": "a compute loop with a timer at 250 Hz"}


def efficiency(results: Path) -> list[list[str]]:
    """Returns EL2's shares of instructions as `make bench` left them, if it has run."""
    if not results.exists():
        return []
    figures = json.loads(results.read_text())["figures"]
    return [[SHARES[figure["key"]], f"{figure['trapeze']:.4f} {figure['unit']}"] for figure in figures
            if figure["key"] in SHARES and figure["trapeze"] is not None]


def figures(space: Space, reports: list[Report], shares: list[list[str]], ran: list[str]) -> str:
    """Returns what docs/theorem.md shows between its marks."""
    first = reports[0]
    heads, lines = summary(space, reports)
    # Not exits and seconds: no two runs have the same.
    parts = [table(heads[:-2], [line[:-2] for line in lines]),
             f"Instructions by class and by what keeps them, on {first.machine}:\n", table(*classes(space, first))]
    if ran:
        parts.append("\n".join(["Random words:\n", *(f"- {line}" for line in ran)]) + "\n")
    if shares:
        parts.append(table(["efficiency", "instructions at EL2"], shares))
    return "\n".join(parts)


def rewrite(document: Path, inside: str) -> None:
    """Puts the figures between the marks of a page."""
    begin, end = "<!-- audit:begin -->", "<!-- audit:end -->"
    before, _, rest = document.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise BadTable(f"{document}: no {begin} and {end}")
    document.write_text(f"{before}{begin}\n{inside}{end}{after}")


# --- HTML -----------------------------------------------------------------------------------------------------------

def html_table(heads: list[str], lines: list[list[str]], codes: frozenset[int] = frozenset()) -> str:
    """Returns a table in HTML; the columns in `codes` are code."""
    def cell(index: int, text: str) -> str:
        inner = f"<code>{escape(text)}</code>" if index in codes else escape(text)
        return f'<td class="n">{inner}</td>' if text.replace(",", "").isdigit() else f"<td>{inner}</td>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "\n".join("<tr>" + "".join(cell(*field) for field in enumerate(line)) + "</tr>" for line in lines)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def space_map(cells: dict, title: str) -> str:
    """Draws the instruction space: op0 across, op1 down, a cell for each encoding; `cells` has its class and words."""
    width, height = 128 * CELL_WIDTH + GAP, 16 * CELL_HEIGHT + GAP + TITLE
    parts = [f'<svg viewBox="0 0 {4 * width} {8 * height}" role="img" aria-label="{escape(title)}">',
             f'<defs><pattern id="cell" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" patternUnits="userSpaceOnUse">'
             f'<rect class="panel" width="{CELL_WIDTH - .4}" height="{CELL_HEIGHT - .4}"/></pattern></defs>']
    for op0 in range(4):
        for op1 in range(8):
            inside = "".join(
                f'<rect class="{kind}" x="{(it.crm * 8 + it.op2) * CELL_WIDTH}" y="{TITLE + it.crn * CELL_HEIGHT}" '
                f'width="{CELL_WIDTH - .4}" height="{CELL_HEIGHT - .4}"><title>{escape(words)}</title></rect>'
                for it, (kind, words) in cells.items() if (it.op0, it.op1) == (op0, op1))
            parts.append(f'<g transform="translate({op0 * width} {op1 * height})">'
                         f'<text y="9">op0 {op0}, op1 {op1}</text><g transform="translate(0 {TITLE})">'
                         f'<rect fill="url(#cell)" width="{128 * CELL_WIDTH}" '
                         f'height="{16 * CELL_HEIGHT}"/></g>{inside}</g>')
    return "\n".join(parts) + "</svg>"


def cells(space: Space, report: Report, of: str) -> dict:
    """Returns class and words of each encoding that is not UNDEFINED everywhere; of both directions the graver one."""
    order = [*VERDICTS] if of == "verdict" else ["innocuous", "absent", "banked", "trapped"]
    found = {}
    for it in report.instructions:
        kind = it.verdict if of == "verdict" else {"not there": "absent"}.get(kept(space, it), kept(space, it))
        words = f"{it.encoding} {it.name} {it.direction}: {theorem.paper_class(space, it)}; {kind}"
        before = found.get(it.encoding)
        if before:
            kind, words = max(before[0], kind, key=order.index), f"{before[1]}\n{words}"
        found[it.encoding] = (kind, words)
    return found


def key(entries: tuple[tuple[str, str], ...]) -> str:
    """Returns the key of a map."""
    return "<p>" + "".join(f'<span class="key {kind}"></span>{escape(words)}' for kind, words in entries) + "</p>"


def html(space: Space, reports: list[Report], complaints: list[str]) -> str:
    """Returns the report as one page."""
    parts = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>Trapeze: audit</title>",
             f"<style>{STYLE}</style>",
             "<h1>Every system instruction, on the bare machine and in a VM</h1>", html_table(*summary(space, reports)),
             "<h2>Complaints</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in complaints) + "</ul>"
             if complaints else "<p>No complaints.</p>",
             "<h2>Differences</h2>", html_table(*differences(space, reports), codes=frozenset((2, 3)))]
    for report in reports:
        parts += [f"<h2>{escape(str(report.machine))}</h2>", html_table(*classes(space, report)),
                  key((*((verdict, verdict) for verdict in VERDICTS), ("undefined", "UNDEFINED in both"))),
                  space_map(cells(space, report, "verdict"), "the instruction space by verdict"),
                  "<details><summary>The same by what keeps each instruction in the VM</summary>",
                  key((("trapped", "trapped to EL2"), ("banked", "state of the VM alone"), ("innocuous", "innocuous"),
                       ("absent", "not there for the VM"), ("undefined", "UNDEFINED in both"))),
                  space_map(cells(space, report, "kept"), "the instruction space by what keeps it"), "</details>",
                  f"<details><summary>All {len(report.instructions)} instructions</summary>",
                  html_table(list(COLUMNS), [list(row) for row in rows(space, report)], codes=frozenset(range(6, 10))),
                  "</details>"]
    return "\n".join(parts) + "</html>\n"


def write(out: Path, space: Space, reports: list[Report], complaints: list[str]) -> None:
    """Writes both pages."""
    (out / "report.md").write_text(markdown(space, reports, complaints))
    (out / "report.html").write_text(html(space, reports, complaints))
