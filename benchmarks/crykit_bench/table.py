"""A run as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from crykit_bench.protocol import Report, Row

Cell = Callable[[Row], str]


def _number(field: str, form: str, scale: float = 1.0) -> Cell:
    def cell(row: Row) -> str:
        value = getattr(row, field)
        return "-" if value is None else format(value * scale, form)

    return cell


def _inside(part: str, field: str, form: str) -> Cell:
    def cell(row: Row) -> str:
        value = (getattr(row, part) or {}).get(field)
        return "-" if value is None else format(value, form)

    return cell


def _auc(row: Row) -> str:
    if not row.clips:
        return "-"
    low, high = row.clips["ci95"]
    return f"{row.clips['auc']:.4f} ({low:.4f}-{high:.4f})"


COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("model", lambda row: row.id),
    ("median ms", _number("latency_ms_median", ".3f")),
    ("p95 ms", _number("latency_ms_p95", ".3f")),
    ("CPU ms/s", _number("cpu_ms_per_audio_s", ".2f")),
    ("RTF", _number("real_time_factor", ".5f")),
    ("x cheaper", _number("times_cheaper_than_cnn14", ".0f")),
    ("file kB", _number("file_bytes", ".0f", 1e-3)),
    ("peak MB", _number("peak_memory_bytes", ".0f", 1e-6)),
    ("off torch", _inside("golden", "max_abs", ".1e")),
    ("clip AUC (95%)", _auc),
    ("F1", _inside("streams", "time_f1", ".3f")),
    ("recall", _inside("streams", "recall", ".3f")),
    ("FA/h", _inside("streams", "false_alarms_per_hour", ".2f")),
)


def print_table(report: Report, console: Console) -> None:
    """The rows, then what they rest on."""
    table = Table(title=report.model, title_justify="left", padding=(0, 1))
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*(cell(row) for _, cell in COLUMNS))
    console.print(table)
    for line in footnotes(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def footnotes(report: Report) -> list[str]:
    """Conditions, what the accuracy rests on, and each row's remark."""
    where = report.conditions
    lines = [
        f"{where['cpu']}, one thread, load {where['load_1min_at_start']} at the start. Latency is "
        "of one step (160 ms of audio; CNN14: 1 s); CPU is of front end and network."
    ]
    clips = next((row.clips for row in report.rows if row.clips), None)
    if clips:
        lines.append(
            f"Clip AUC: {clips['clips']} {clips['split']} clips of {clips['groups']} groups; "
            "interval by bootstrap over groups."
        )
    streams = next((row.streams for row in report.rows if row.streams), None)
    if streams:
        lines.append(_stream_note(streams))
    lines += [f"{row.id}: {_remark(row)}" for row in report.rows if row.note]
    return lines


def _stream_note(streams: dict[str, Any]) -> str:
    return (
        f"Streams: {streams['hours']:.2f} h with {streams['bouts']} bouts, the bundle's own gate; "
        f"so short a time cannot show under {3.0 / streams['hours']:.1f} false alarms an hour."
    )


def _remark(row: Row) -> str:
    return row.note if row.status == "ok" else f"{row.status.upper()}: {row.note}"
