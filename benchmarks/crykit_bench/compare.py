"""Two reports side by side: what changed, and what is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from crykit.errors import InputError
from crykit_bench.protocol import SCHEMA_VERSION, Report, Row

DRIFT = 0.05
"""A second run of the same thing strays by about this, whatever the intervals within a run say."""
WHERE = ("cpu", "cores", "system")

CHANGED, NOISE, SAME = "changed", "noise", "same"


@dataclass(frozen=True)
class Change:
    """One figure of one row. `told` is the change in words, with an interval where there is one."""

    row: str
    what: str
    before: str
    after: str
    told: str
    verdict: str


@dataclass
class Changes:
    """All of them, and what had to be left out."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Schema(msgspec.Struct):
    schema_version: int


def read_report(path: Path) -> Report:
    """A report that `crykit bench --json` wrote.

    Raises:
        InputError: it cannot be read, is none, or is of another schema.
    """
    try:
        raw = path.read_bytes()
        schema = msgspec.json.decode(raw, type=_Schema).schema_version
        if schema != SCHEMA_VERSION:
            raise InputError(
                f"{path}: a report of schema {schema}, but this bench compares "
                f"{SCHEMA_VERSION}; measure again"
            )
        return msgspec.json.decode(raw, type=Report)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a report of `crykit bench --json`: {error}") from None


def compare_reports(before: Report, after: Report) -> Changes:
    """Row by row; times only where both were measured on one machine."""
    found = Changes()
    old = {row.id: row for row in before.rows}
    new = {row.id: row for row in after.rows}
    here = [str(r.conditions.get(key)) for r in (before, after) for key in WHERE]
    same_machine = here[: len(WHERE)] == here[len(WHERE) :]
    if not same_machine:
        machines = " and ".join(str(r.conditions.get("cpu")) for r in (before, after))
        found.notes.append(
            f"not one machine ({machines}, or another system): times, memory and floors are not "
            "compared, sizes and accuracy are"
        )
    for name, model in after.models.items():
        if before.models.get(name) not in (None, model):
            found.notes.append(f"{name} was {before.models[name]}, now {model}")
    for row_id in new:
        if row_id in old:
            found.changes += _of_row(old[row_id], new[row_id], same_machine)
    for which, ours, theirs in (("first", old, new), ("second", new, old)):
        if alone := [row_id for row_id in ours if row_id not in theirs]:
            found.notes.append(f"only in the {which} report: {', '.join(alone)}")
    return found


def _of_row(old: Row, new: Row, same_machine: bool) -> list[Change]:
    if old.status != new.status:
        return [Change(new.id, "status", old.status, new.status, "", CHANGED)]
    changes = [_exact(old, new, *size) for size in _SIZES]
    if same_machine:
        changes += [_timed(old, new, *time) for time in _TIMES]
        changes += [_drifting(old, new, *cost) for cost in _COSTS]
    changes += [_auc(old, new), _time_f1(old, new), _false_alarms(old, new)]
    return [change for change in changes if change is not None]


_SIZES = (
    ("file_bytes", "files kB", 1e-3),
    ("parameters", "parameters k", 1e-3),
    ("network_macs_per_audio_s", "MMAC/s", 1e-6),
)
_TIMES = (
    ("latency_ms_median", "latency_ms_interval", "median ms"),
    ("cpu_ms_per_audio_s", "cpu_ms_per_audio_s_interval", "CPU ms a second"),
)
_COSTS = (
    ("latency_ms_p99", "p99 ms", 1.0, 0.5),
    ("cold_start_ms", "cold start ms", 1.0, 0.2),
    ("peak_memory_bytes", "peak MB", 1e-6, 0.03),
)
"""Field, name, scale, and how far it strays by itself, as a share."""


def _exact(old: Row, new: Row, name: str, what: str, scale: float) -> Change | None:
    a, b = getattr(old, name), getattr(new, name)
    if a is None or b is None:
        return None
    verdict = SAME if a == b else CHANGED
    return Change(new.id, what, f"{a * scale:,.1f}", f"{b * scale:,.1f}", _ratio(a, b), verdict)


def _timed(old: Row, new: Row, name: str, interval: str, what: str) -> Change | None:
    """The ratio with a 95% interval from those of both medians, taken as normal in the log."""
    a, b = getattr(old, name), getattr(new, name)
    ends = getattr(old, interval), getattr(new, interval)
    if not a or not b or None in ends:
        return None
    half = math.hypot(*(math.log(high / low) / 2.0 for low, high in ends)) if a and b else 0.0
    centre = math.log(b / a)
    low, high = math.expm1(centre - half), math.expm1(centre + half)
    apart = low > DRIFT or high < -DRIFT
    told = f"{_ratio(a, b)} ({low:+.1%} to {high:+.1%})"
    return Change(new.id, what, f"{a:.3f}", f"{b:.3f}", told, CHANGED if apart else NOISE)


def _drifting(
    old: Row, new: Row, name: str, what: str, scale: float, drift: float
) -> Change | None:
    a, b = getattr(old, name), getattr(new, name)
    if not a or not b:
        return None
    verdict = CHANGED if abs(math.log(b / a)) > math.log1p(drift) else NOISE
    return Change(new.id, what, f"{a * scale:,.1f}", f"{b * scale:,.1f}", _ratio(a, b), verdict)


def _same_data(old: dict[str, Any] | None, new: dict[str, Any] | None, *keys: str) -> bool:
    return bool(old and new and all(old.get(key) == new.get(key) for key in keys))


def _auc(old: Row, new: Row) -> Change | None:
    """Noise while each value lies within the other's interval."""
    if not (old.clips and new.clips and _same_data(old.clips, new.clips, "clips", "cries")):
        return None
    a, b = old.clips, new.clips
    within = all(
        x["ci95"][0] <= y["auc"] <= x["ci95"][1] for x, y in ((a, b), (b, a))
    )  # fmt: skip
    verdict = SAME if a["auc"] == b["auc"] else NOISE if within else CHANGED
    low, high = b["ci95"]
    told = f"{b['auc'] - a['auc']:+.4f} (now {low:.4f} to {high:.4f})"
    return Change(new.id, "clip AUC", f"{a['auc']:.4f}", f"{b['auc']:.4f}", told, verdict)


def _time_f1(old: Row, new: Row) -> Change | None:
    """The same streams give the same figure, so any difference is the model's."""
    if not (old.streams and new.streams and _same_data(old.streams, new.streams, "hours", "bouts")):
        return None
    a, b = old.streams["time_f1"], new.streams["time_f1"]
    told = f"{b - a:+.3f}"
    verdict = SAME if abs(b - a) < 5e-4 else CHANGED
    return Change(new.id, "time F1", f"{a:.3f}", f"{b:.3f}", told, verdict)


def _false_alarms(old: Row, new: Row) -> Change | None:
    """Exact test that both counts come from one rate (W. Przyborowski and H. Wilenski, 1940)."""
    if not (old.streams and new.streams):
        return None
    (a, a_hours), (b, b_hours) = (
        (streams["false_alarms"], streams["hours"]) for streams in (old.streams, new.streams)
    )
    p = two_rates(a, a_hours, b, b_hours)
    verdict = SAME if a / a_hours == b / b_hours else CHANGED if p < 0.05 else NOISE
    before, after = f"{a / a_hours:.2f}", f"{b / b_hours:.2f}"
    return Change(new.id, "false alarms/h", before, after, f"p = {p:.2g}", verdict)


def two_rates(a: int, a_hours: float, b: int, b_hours: float) -> float:
    """Two-sided p of counts `a` in `a_hours` and `b` in `b_hours` under one rate."""
    share, n = a_hours / (a_hours + b_hours), a + b
    chances = [math.comb(n, k) * share**k * (1.0 - share) ** (n - k) for k in range(n + 1)]
    return min(1.0, math.fsum(c for c in chances if c <= chances[a] * (1.0 + 1e-9)))


def _ratio(a: float, b: float) -> str:
    return f"{b / a - 1.0:+.1%}" if a else ""


def print_changes(found: Changes, console: Console) -> None:
    """What changed first, then what is noise; what is the same is counted."""
    for verdict in (CHANGED, NOISE):
        changes = [change for change in found.changes if change.verdict == verdict]
        if not changes:
            console.print(f"{verdict}: nothing")
            continue
        table = Table(title=verdict, title_justify="left", title_style="bold", padding=(0, 1))
        for heading in ("row", "what", "before", "after", "change (95%)"):
            side = "left" if heading in ("row", "what") else "right"
            table.add_column(heading, justify=side, overflow="fold")
        for c in changes:
            table.add_row(c.row, c.what, c.before, c.after, c.told)
        console.print(table)
    same = sum(change.verdict == SAME for change in found.changes)
    console.print(
        f"the same: {same} figures; noise: within {DRIFT:.0%} from run to run, or the intervals",
        highlight=False,
    )
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
