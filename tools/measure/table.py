"""Figures as tables: for the terminal, and as Markdown between the two marks of the README."""

import re
from pathlib import Path

from measure.figures import Figure, Results

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NONE = "–"


def number(value: float | None, unit: str = "") -> str:
    """Returns a value as people read it: grouped digits, or two significant decimals of a small percentage."""
    if value is None:
        return NONE
    text = f"{value:,.4f}" if unit == "%" else f"{value:,.0f}"
    return f"{text} %" if unit == "%" else text


def words(figure: Figure) -> str:
    """Returns what the figure is, with the unit where it is not instructions or percent."""
    return f"{figure.words}, bytes" if figure.unit == "bytes" else figure.words


def rows_of_operations(results: Results) -> list[list[str]]:
    """Returns the table of operations: bare, then a column for each machine."""
    names = list(results.operations)
    rows = [["instructions, seen by the guest", "bare", *names, "aim"]]
    for first, *others in zip(*results.operations.values(), strict=True):
        rows.append([first.words, number(first.bare), *(number(figure.trapeze) for figure in (first, *others)),
                     number(first.aim)])
    return rows


def rows_of_figures(results: Results) -> list[list[str]]:
    """Returns the table of everything else."""
    rows = [["", "bare", "Trapeze", "bar", "aim"]]
    for figure in results.figures:
        rows.append([words(figure), number(figure.bare, figure.unit), number(figure.trapeze, figure.unit),
                     number(figure.bar, figure.unit), number(figure.aim, figure.unit)])
    return rows


def rows_of_exits(results: Results) -> list[list[str]]:
    """Returns why the guest was left."""
    rows = [["exits in Debian's boot to init", "number", "most frequent"]]
    for group, reasons in results.exits.items():
        most = ", ".join(f"{reason} {count}" for reason, count in list(reasons.items())[:4] if reason)
        rows.append([group, number(sum(reasons.values())), most])
    return rows


def plain(rows: list[list[str]]) -> str:
    """Lays a table out in columns; the first is text, the others are numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                            zip(row[1:], widths[1:], strict=True))]).rstrip()
                     for row in rows)


def markdown(rows: list[list[str]]) -> str:
    """Writes a table in Markdown."""
    head, *body = rows
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *body))


def for_readme(results: Results) -> str:
    """Returns what stands between the marks."""
    first = next(iter(results.operations))
    return "\n\n".join((
        markdown(rows_of_operations(results)),
        markdown(rows_of_figures(results)),
        f"QEMU {results.qemu}, one CPU where nothing else is said; the second table: {first}. "
        "[docs/bench.md](docs/bench.md) says how.",
    ))


def rewrite(readme: Path, results: Results) -> None:
    """Replaces what stands between the marks of the README."""
    old = readme.read_text(encoding="utf-8")
    new, times = re.subn(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n{for_readme(results)}\n{END}", old, flags=re.DOTALL)
    if times != 1:
        raise SystemExit(f"bench: {readme}: no {BEGIN} followed by {END}, or more than one")
    if new != old:
        readme.write_text(new, encoding="utf-8")
