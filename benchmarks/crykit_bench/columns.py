"""What is shown of a row, once for the terminal, the page and the markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from crykit_bench.protocol import Report, Row, interval_share

Cell = Callable[[Row], str]
NOTHING = "-"


@dataclass(frozen=True)
class Part:
    """Some columns that are read together, narrow enough for a terminal of 80.

    `note` says what they mean, where a page has room for it.
    """

    title: str
    columns: tuple[tuple[str, Cell], ...]
    note: str


def number(field: str, form: str, scale: float = 1.0) -> Cell:
    """A field of the row, scaled and formatted."""

    def cell(row: Row) -> str:
        value = getattr(row, field)
        return NOTHING if value is None else format(value * scale, form)

    return cell


def inside(part: str, field: str, form: str, scale: float = 1.0) -> Cell:
    """A field of one of the row's dictionaries."""

    def cell(row: Row) -> str:
        value = (getattr(row, part) or {}).get(field)
        return NOTHING if value is None else format(value * scale, form)

    return cell


def _step(row: Row) -> str:
    """Of rows that were timed: one that was skipped has a step and nothing else."""
    return NOTHING if row.latency_ms_median is None else f"{row.step_ms:.4g}"


def _median(row: Row) -> str:
    if row.latency_ms_median is None:
        return NOTHING
    share = interval_share(row)
    within = "" if share is None else f" ±{100 * share:.1f}%"
    return f"{row.latency_ms_median:.3f}{within}"


def _auc(row: Row) -> str:
    if not row.clips:
        return NOTHING
    low, high = row.clips["ci95"]
    return f"{row.clips['auc']:.4f} ({low:.4f}-{high:.4f})"


def _false_alarms(row: Row) -> str:
    if not row.streams:
        return NOTHING
    upper = row.streams["false_alarms_per_hour_upper95"]
    return f"{row.streams['false_alarms_per_hour']:.2f} (<{upper:.2f})"


def name_of(row: Row) -> str:
    """Within its model's rows: `onnx int8`, with the step where it is not the model's own."""
    if row.model == row.runtime:
        return row.model
    step = row.id.partition("@")[2]
    return " ".join(filter(None, (row.runtime, row.precision, step.replace("ms", " ms"))))


PARTS = (
    Part(
        "Speed: one step, front end and network, in ms",
        (
            ("step", _step),
            ("median", _median),
            ("p95", number("latency_ms_p95", ".3f")),
            ("p99", number("latency_ms_p99", ".3f")),
            ("CPU s/h", number("cpu_s_per_audio_hour", ".2f")),
            ("RTF", number("real_time_factor", ".4f")),
        ),
        "Median with half of its 95% interval; 95th and 99th percentile. CPU s/h: CPU time "
        "for an hour of audio. RTF: median over the audio's own time.",
    ),
    Part(
        "Size, start and memory",
        (
            ("files kB", number("file_bytes", ",.0f", 1e-3)),
            ("params k", number("parameters", ",.0f", 1e-3)),
            ("cold ms", number("cold_start_ms", ",.0f")),
            ("open ms", number("open_ms", ",.0f")),
            ("peak MB", number("peak_memory_bytes", ",.0f", 1e-6)),
            ("steady", number("steady_memory_bytes", ",.0f", 1e-6)),
        ),
        "Files: what this row needs of the bundle. Cold: start of the process to its first "
        "inference, files cached; open: importing and opening alone. Memory in MB is that of "
        "the row's whole process, Python included.",
    ),
    Part(
        "Work, and its share of the peak",
        (
            ("MMAC/s", number("network_macs_per_audio_s", ".1f", 1e-6)),
            ("net ms", number("network_ms_median", ".3f")),
            ("floor", inside("floor", "network_ms", ".3f")),
            ("share", inside("floor", "network_share", ".1%")),
            ("whole", inside("floor", "whole_share", ".1%")),
            ("x CNN14", number("times_cheaper_than_cnn14", ".1f")),
        ),
        "MMAC/s: multiplications with addition of the network for a second of audio. Net: the"
        " network alone, ms a step. x CNN14: how many times less CPU than CNN14 in fp32.",
    ),
    Part(
        "What it hears",
        (
            ("clip AUC (95%)", _auc),
            ("F1", inside("streams", "time_f1", ".3f")),
            ("recall", inside("streams", "recall", ".3f")),
            ("FA/h (95%)", _false_alarms),
        ),
        "F1 compares seconds; a bout is recalled where events cover half of it. FA/h: false "
        "alarms an hour, and a one-sided 95% upper bound.",
    ),
    Part(
        "Agreement with torch, frame by frame",
        (
            ("max abs", inside("agreement", "max_abs", ".1e")),
            ("mean abs", inside("agreement", "mean_abs", ".1e")),
            ("same side", inside("agreement", "same_side_share", ".3%")),
            ("frames", inside("agreement", "frames", ",.0f")),
            ("heard", lambda row: (row.agreement or {}).get("on", NOTHING)),
        ),
        "Of cry probabilities. Same side: share of frames on the same side of the gate's on-"
        "threshold as torch.",
    ),
)


def parts_with_content(report: Report) -> list[Part]:
    """Those in which some row has a figure, with the columns that have one."""
    parts = [replace(part, columns=_filled(report, part)) for part in PARTS]
    return [part for part in parts if part.columns]


def _filled(report: Report, part: Part) -> tuple[tuple[str, Cell], ...]:
    return tuple(
        (heading, cell)
        for heading, cell in part.columns
        if any(cell(row) != NOTHING for row in report.rows)
    )


def rows_of(report: Report, part: Part) -> list[Row]:
    """Rows that have a figure there."""
    return [row for row in report.rows if any(cell(row) != NOTHING for _, cell in part.columns)]


def footnotes(report: Report) -> list[str]:
    """Conditions, what the accuracy rests on, and each row's remark."""
    lines = [f"Chosen: {line}" for line in (report.choice or {}).get("why", [])]
    lines += [_conditions(report.conditions), _timing(report.conditions["timing"])]
    peak = report.conditions["peak_macs_per_s"]
    if peak:
        lines.append(
            f"Peak: {peak / 1e9:.1f} GMAC/s, the best fp32 matrix product of one thread in this "
            "run. Floor: a step's multiplications at that speed; share: what the network alone "
            "reaches of it, whole: with the front end. int8 kernels may do more than that peak."
        )
    clips = next((row.clips for row in report.rows if row.clips), None)
    if clips:
        lines.append(
            f"Clip AUC: {clips['clips']} {clips['split']} clips of {clips['groups']} groups, "
            f"{clips['cries']} cries of {clips['cry_groups']}; interval by bootstrap over groups."
        )
    streams = next((row.streams for row in report.rows if row.streams), None)
    if streams:
        lines.append(_stream_note(streams))
    lines += [f"{row.id}: {_remark(row)}" for row in report.rows if row.note]
    return lines


def _conditions(where: dict[str, Any]) -> str:
    flags = ", ".join(where["cpu_flags"]) or "no flags known"
    start, end = where["start"]["load_1min"], where["end"]["load_1min"]
    threads = "one thread" if where["threads"] == 1 else f"{where['threads']} threads"
    return f"{where['cpu']} ({flags}), {threads} pinned, load {start} before and {end} after."


def _timing(timing: dict[str, Any]) -> str:
    ended = {
        "interval": f"every median is within {timing['target_share']:.0%} (95%)",
        "budget": f"the budget of {timing['budget_s']:g} s ended it",
        "rounds": "no more were asked for",
    }[timing["ended_by"]]
    worst = timing["worst_share"]
    widest = "" if worst is None else f"; the widest interval is ±{worst:.1%}"
    return f"Timing: {timing['rounds']} rounds in shuffled order, {ended}{widest}."


def _stream_note(streams: dict[str, Any]) -> str:
    return (
        f"Streams: {streams['hours']:.2f} h with {streams['bouts']} bouts, the bundle's own gate; "
        f"so short a time cannot show under {3.0 / streams['hours']:.1f} false alarms an hour. "
        "Rows of other steps have the same states and frames: what they hear is their model's."
    )


def _remark(row: Row) -> str:
    return row.note if row.status == "ok" else f"{row.status.upper()}: {row.note}"
