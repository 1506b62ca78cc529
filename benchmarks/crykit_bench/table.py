"""A run on the terminal: a few narrow tables, whole at 80 columns."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from crykit_bench.columns import Part, footnotes, name_of, parts_with_content, rows_of
from crykit_bench.protocol import Report

# No frame: a row of seven figures has to fit into 80 columns.
_NARROW: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "pad_edge": False,
    "padding": (0, 1, 0, 0),
}

NAME_WIDTH = len("executorch int8 320 ms")


def print_report(report: Report, console: Console) -> None:
    """The rows by model, then what they rest on."""
    for part in parts_with_content(report):
        console.print(_table(report, part))
        console.print()
    for line in footnotes(report):
        console.print(line, markup=False, highlight=False)


def _table(report: Report, part: Part) -> Table:
    rows = rows_of(report, part)
    table = Table(title=part.title, title_justify="left", title_style="bold", **_NARROW)
    # The name of a model may be longer than those of its rows: it goes on in the next line.
    table.add_column("", max_width=NAME_WIDTH, overflow="fold")
    for heading, _ in part.columns:
        table.add_column(heading, justify="right", no_wrap=True)
    shown = ""
    for row in rows:
        if row.model != shown and len(report.models) > 1 and row.model in report.models:
            table.add_section()
            table.add_row(f"[bold]{row.model}")
        elif row.model != shown and row.model not in report.models:
            table.add_section()
        shown = row.model
        cells = [cell(row) for _, cell in part.columns]
        table.add_row(name_of(row), *cells)
    return table
