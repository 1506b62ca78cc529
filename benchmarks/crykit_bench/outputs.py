"""Where a report goes: the terminal, and files that are written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from crykit.errors import InputError
from crykit.files import write_aside
from crykit_bench.protocol import Report
from crykit_bench.table import print_report

WIDEST = 160


@dataclass(frozen=True)
class Outputs:
    """The files that were asked for; `json` may be `-`, standard output."""

    json: str | None = None
    csv: Path | None = None
    html: Path | None = None
    markdown: Path | None = None

    def check(self) -> None:
        """Refuse before minutes of measuring what could not be written after them.

        Raises:
            InputError: a folder is missing or cannot be written.
        """
        json = Path(self.json) if self.json not in (None, "-") else None
        for path in (json, self.csv, self.html, self.markdown):
            if path is None:
                continue
            folder = path.parent
            if not folder.is_dir() or path.is_dir() or not os.access(folder, os.W_OK):
                raise InputError(f"{path}: cannot be written; name a file in a folder that is")

    def write(self, report: Report) -> None:
        """Print the tables, then write each file aside and rename it."""
        from crykit_bench.html import page
        from crykit_bench.markdown import document

        # A table cut off at 80 columns would lose its numbers, so a pipe gets it whole.
        console = Console(stderr=self.json == "-")
        wide = Console(file=console.file, width=WIDEST)
        print_report(report, console if console.is_terminal else wide)
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        if self.json == "-":
            sys.stdout.buffer.write(encoded)
        elif self.json:
            _write(Path(self.json), encoded)
        if self.csv:
            _write(self.csv, as_csv(report).encode())
        if self.html:
            _write(self.html, page(report).encode())
        if self.markdown:
            _write(self.markdown, document(report).encode())


def _write(path: Path, content: bytes) -> None:
    with write_aside(path) as file:
        file.write(content)


def as_csv(report: Report) -> str:
    """One line a row; a dictionary's fields and an interval's ends are columns of their own."""
    flat = [_flat(msgspec.to_builtins(row)) for row in report.rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(row: dict[str, object]) -> dict[str, object]:
    cells: dict[str, object] = {}
    for name, value in row.items():
        if name == "latency_ms_quantiles":
            continue
        if isinstance(value, dict):
            cells |= {f"{name}_{key}": cell for key, cell in _flat(value).items()}
        elif isinstance(value, list | tuple):
            cells |= {f"{name}_{end}": v for end, v in zip(("low", "high"), value, strict=True)}
        else:
            cells[name] = value
    return cells
