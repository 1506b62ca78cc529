"""A report of the bench as it comes out, made up, for tests of what is done with one."""

from __future__ import annotations

from typing import Any

import numpy as np

from crykit_bench.protocol import Report, Row, Timing
from crykit_bench.timing import summarise


def made_up_row(row_id: str, step_wall_ms: float, seed: int = 0, **fields: Any) -> Row:
    """A row timed over 20 blocks of 40 steps about `step_wall_ms` long."""
    rng = np.random.default_rng(seed)
    kind, _, step = row_id.partition("@")
    model, _, kind = kind.rpartition(":")
    runtime, _, precision = kind.partition("-")
    row = Row(id=row_id, model=model or "cry-student", runtime=runtime, precision=precision)
    row.golden = {"max_abs": 1e-6}
    step_s = float(step.removesuffix("ms") or 160.0) / 1000.0
    walls = step_wall_ms * rng.lognormal(0.0, 0.05, (20, 40))
    summarise(row, [Timing(wall.tolist(), float(wall.sum()), step_s) for wall in walls])
    for name, value in fields.items():
        setattr(row, name, value)
    return row


def made_up_clips(auc: float, half: float = 0.002) -> dict[str, Any]:
    return {
        "auc": auc, "ci95": [auc - half, auc + half], "groups": 40, "clips": 100, "cries": 20,
        "cry_groups": 10, "split": "test", "manifest": "clips.csv",
    }  # fmt: skip


def made_up_streams(f1: float, false_alarms: int, hours: float = 1.0) -> dict[str, Any]:
    return {
        "time_f1": f1, "recall": 0.9, "bouts": 48, "found": 43, "false_alarms": false_alarms,
        "false_alarms_per_hour": false_alarms / hours, "false_alarms_per_hour_upper95": 3.0,
        "delay_median_s": 0.2, "hours": hours, "streams": 6, "folder": "streams",
    }  # fmt: skip


def made_up_report(*rows: Row, cpu: str = "A <fast> CPU") -> Report:
    state = {"load_1min": 0.1, "frequency_mhz": None, "temperature_c": 41.5}
    conditions: dict[str, Any] = {
        "measured_at": "2026-01-01T00:00:00+00:00", "cpu": cpu, "cpu_flags": ["avx2"], "cores": 2,
        "system": "Linux 6 x86_64", "python": "3.11", "versions": {"numpy": "2.0"}, "threads": 1,
        "governor": None, "seed": 0, "start": state, "end": state, "peak_macs_per_s": 5e10,
        "command": "crykit bench <made up>",
        "timing": {
            "rounds": 20, "ended_by": "budget", "target_share": 0.03, "worst_share": 0.01,
            "budget_s": 60.0, "spent_s": 60.1,
        },
    }  # fmt: skip
    names = dict.fromkeys(row.model for row in rows if row.model not in ("cnn14", "yamnet"))
    models = {name: f"{name}@sha256:0123456789ab" for name in names}
    return Report(
        model=next(iter(models.values()), ""), models=models, conditions=conditions, rows=list(rows)
    )
