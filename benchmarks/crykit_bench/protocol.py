"""What the bench asks of a row's own process, and what a row and a report hold."""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA_VERSION = 2


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a row's process opens.

    Args:
        id: of the row, for messages.
        runtime, precision: as `crykit.runtime.open_runtime` takes them; the runtime of other
            models is "cnn14" or "yamnet".
        path: the bundle, or the file of another model.
        core: first CPU that the process is pinned to.
        threads: it may use, each on a CPU of its own from `core` on.
        step_samples: heard at a time, if not the manifest's own step.
        encoder: whether the bundle is one, which hears whole clips and detects nothing.
        golden: .npz of the golden clip and torch's answers, made by the bench so that decoding
            sound does not count as the row's memory; empty where there is none.
    """

    id: str
    runtime: str
    precision: str
    path: str
    core: int = 0
    threads: int = 1
    step_samples: int | None = None
    encoder: bool = False
    golden: str = ""


class Opened(msgspec.Struct, frozen=True):
    """A row's process is ready: how long it took, and with what.

    Args:
        cold_start_ms: start of the process to the end of its first inference.
        open_ms: the part of it that is importing and opening the model.
        engine: what runs it, with its version.
    """

    cold_start_ms: float
    open_ms: float
    engine: str
    step_s: float


class Timing(msgspec.Struct):
    """Of one block of steps, measured inside the row's process."""

    wall_ms: list[float]
    cpu_ms: float
    step_s: float


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. None where a thing was not measured.

    `status` is "ok", "skipped" (not installed, not in the bundle), "disagrees" (with torch, beyond
    the manifest's tolerance; not timed) or "failed" (its process broke).

    `latency_ms_interval` is the 95% bootstrap interval of the median, over blocks of steps;
    `latency_ms_quantiles` are the 0th to the 100th percentile. `floor` is the share of the
    machine's measured peak that is reached, of the network and of the whole.
    """

    id: str
    model: str
    runtime: str
    precision: str
    status: str = "ok"
    note: str = ""
    engine: str = ""
    threads: int = 1
    step_ms: float | None = None
    steps_timed: int = 0
    blocks_timed: int = 0
    latency_ms_median: float | None = None
    latency_ms_interval: tuple[float, float] | None = None
    latency_ms_p95: float | None = None
    latency_ms_p99: float | None = None
    latency_ms_quantiles: list[float] | None = None
    cpu_ms_per_audio_s: float | None = None
    cpu_ms_per_audio_s_interval: tuple[float, float] | None = None
    cpu_s_per_audio_hour: float | None = None
    real_time_factor: float | None = None
    times_cheaper_than_cnn14: float | None = None
    cold_start_ms: float | None = None
    open_ms: float | None = None
    file_bytes: int | None = None
    parameters: int | None = None
    network_macs_per_audio_s: float | None = None
    frontend_macs_per_audio_s: float | None = None
    network_ms_median: float | None = None
    floor: dict[str, float] | None = None
    peak_memory_bytes: int | None = None
    steady_memory_bytes: int | None = None
    golden: dict[str, float] | None = None
    agreement: dict[str, Any] | None = None
    clips: dict[str, Any] | None = None
    streams: dict[str, Any] | None = None


class Report(msgspec.Struct, kw_only=True):
    """The JSON of a run. `models` maps each model's name to its id, with its digest."""

    schema_version: int = SCHEMA_VERSION
    model: str
    models: dict[str, str]
    conditions: dict[str, Any]
    rows: list[Row]
    choice: dict[str, Any] | None = None


def interval_share(row: Row) -> float | None:
    """Half the width of the median's interval, as a share of the median."""
    if row.latency_ms_interval is None or not row.latency_ms_median:
        return None
    low, high = row.latency_ms_interval
    return (high - low) / (2.0 * row.latency_ms_median)
