"""What the bench asks of a row's own process, and what a row reports."""

from __future__ import annotations

from typing import Any

import msgspec


class Subject(msgspec.Struct, frozen=True):
    """One row: a model under a runtime.

    Args:
        id: for `--runtimes`, such as `onnx-int8`.
        runtime, precision: as `crykit.runtime.open_runtime` takes them.
        path: the bundle; of `cnn14-fp32`, its ONNX file.
        core: CPU that the process is pinned to.
    """

    id: str
    runtime: str
    precision: str
    path: str
    core: int


class Timing(msgspec.Struct):
    """Of one block of steps, measured inside the row's process."""

    wall_ms: list[float]
    cpu_ms: float
    step_s: float


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. None where a thing was not measured.

    `status` is "ok", "skipped" (not installed, not in the bundle), "disagrees" (with torch, beyond
    the manifest's tolerance; not timed) or "failed" (its process broke).
    """

    id: str
    runtime: str
    precision: str
    status: str = "ok"
    note: str = ""
    step_ms: float | None = None
    latency_ms_median: float | None = None
    latency_ms_p95: float | None = None
    steps_timed: int = 0
    cpu_ms_per_audio_s: float | None = None
    real_time_factor: float | None = None
    times_cheaper_than_cnn14: float | None = None
    file_bytes: int | None = None
    peak_memory_bytes: int | None = None
    golden: dict[str, float] | None = None
    clips: dict[str, Any] | None = None
    streams: dict[str, Any] | None = None


class Report(msgspec.Struct, kw_only=True):
    """The JSON of a run."""

    schema_version: int = 1
    model: str
    conditions: dict[str, Any]
    rows: list[Row]
