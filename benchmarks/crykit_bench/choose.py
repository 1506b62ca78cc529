"""The device gate: which version of a model this device should run, and why, from measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crykit.bundle import Bundle
from crykit.choice import Choice, machine_id
from crykit.errors import FaultFound, UsageError
from crykit_bench.protocol import Row

CHEAP, SMALL = "cheap", "small"
NEEDS = (CHEAP, SMALL)
NOISE_SHARE = 0.03
"""Medians are timed to within this; what is nearer than that is as good as equal."""
ENOUGH_OF_A_STEP = 0.5
"""One thread keeps up while its slowest steps take no more than this share of real time."""

# Among equals: the fuller precision, then the runtime that the base install has.
_PRECISIONS = ("fp32", "fp16", "int8")
_RUNTIMES = ("onnx", "executorch", "torch")


@dataclass(frozen=True)
class Need:
    """What the device is short of.

    Args:
        first: "cheap", the least CPU time, or "small", the smallest files.
        max_bytes: files of at most so many bytes; None for any.
    """

    first: str = CHEAP
    max_bytes: int | None = None

    @property
    def smaller(self) -> bool:
        """Whether size was asked for at all."""
        return self.first == SMALL or self.max_bytes is not None


def pick(rows: Sequence[Row], need: Need) -> tuple[Row, list[str]]:
    """The row to run and the reasons, in sentences.

    Raises:
        FaultFound: no version ran and agreed with torch.
        UsageError: none is small enough.
    """
    sound = [row for row in rows if row.status == "ok" and row.cpu_ms_per_audio_s]
    if not sound:
        raise FaultFound("nothing to choose from: no version ran here and agreed with torch")
    fitting = [row for row in sound if _fits(row, need)]
    if not fitting:
        least = min(sound, key=_bytes)
        raise UsageError(
            f"--max-bytes {need.max_bytes}: the smallest version, {_told(least)}, has "
            f"{_bytes(least)} bytes; allow that, or give a smaller model"
        )
    best = min(fitting, key=_bytes if need.first == SMALL else _cpu)
    equals = [row for row in fitting if _as_good(row, best, need)]
    chosen = min(equals, key=_preference)
    return chosen, _reasons(chosen, fitting, len(sound), need)


def _fits(row: Row, need: Need) -> bool:
    return need.max_bytes is None or _bytes(row) <= need.max_bytes


def _as_good(row: Row, best: Row, need: Need) -> bool:
    if need.first == SMALL:
        return _bytes(row) == _bytes(best)
    return _cpu(row) <= _cpu(best) * (1.0 + NOISE_SHARE) or _overlap(row, best)


def _overlap(a: Row, b: Row) -> bool:
    """Whether the intervals of their CPU times share a point."""
    first, second = a.cpu_ms_per_audio_s_interval, b.cpu_ms_per_audio_s_interval
    return bool(first and second and first[0] <= second[1] and second[0] <= first[1])


def _preference(row: Row) -> tuple[int, int, float, float]:
    own_step = "@" not in row.id
    return (
        _PRECISIONS.index(row.precision),
        0 if own_step else 1,
        _RUNTIMES.index(row.runtime),
        _cpu(row),
    )


def _reasons(chosen: Row, fitting: Sequence[Row], n_sound: int, need: Need) -> list[str]:
    what = "the smallest files" if need.first == SMALL else "the least CPU time, within the noise,"
    among = f"of {n_sound} versions that agree with torch here"
    if need.max_bytes is not None:
        among += f", {len(fitting)} of them under {need.max_bytes} bytes"
    lines = [f"{_told(chosen)}: {what} {among}: {_cost(chosen)}."]
    lines += _about_int8(chosen, fitting, need)
    lines += _about_step(chosen, fitting)
    return lines


def _about_int8(chosen: Row, fitting: Sequence[Row], need: Need) -> list[str]:
    """Why int8 was taken or refused, against the cheapest fuller version."""
    int8 = [row for row in fitting if row.precision == "int8"]
    fuller = [row for row in fitting if row.precision != "int8"]
    if not int8 or not fuller:
        return []
    quick, full = min(int8, key=_cpu), min(fuller, key=_cpu)
    change = _cpu(quick) / _cpu(full) - 1.0
    against = f"{_told(quick)} takes {_percent(change)} CPU time than {_told(full)}"
    if chosen.precision == "int8":
        why = "and was taken" if change < 0 else "and was taken all the same: it is smaller"
    elif need.smaller:
        why = "and was not needed to be small enough"
    elif change > 0:
        why = "and was refused: no need to be smaller was stated (--need small, --max-bytes)"
    else:
        why = "which is not apart from the noise, and was refused: fp32 is what was trained"
    return [f"{against}, {why}."]


def _about_step(chosen: Row, fitting: Sequence[Row]) -> list[str]:
    same = (chosen.runtime, chosen.precision)
    others = [r for r in fitting if (r.runtime, r.precision) == same and r is not chosen]
    if not others:
        return []
    told = ", ".join(f"{r.step_ms:g} ms {_percent(_cpu(r) / _cpu(chosen) - 1.0)}" for r in others)
    return [f"Steps of {chosen.step_ms:g} ms; in others, CPU time would be: {told}."]


def pick_threads(one: Row, more: Row | None) -> tuple[int, list[str]]:
    """Threads, given the chosen row with one thread and, if it was measured, with several.

    A step is small, so a second thread mostly waits: it is taken only where one does not keep up.
    """
    slowest, step_ms = one.latency_ms_p99 or 0.0, one.step_ms or 1.0
    share = slowest / step_ms
    used = f"its slowest steps (p99) take {slowest:.2f} ms of {step_ms:g}, {share:.1%}"
    if more is None or more.status != "ok" or not more.latency_ms_median:
        return 1, [f"One thread: {used}."]
    latency = (more.latency_ms_median or 0.0) / (one.latency_ms_median or 1.0) - 1.0
    cpu = _cpu(more) / _cpu(one) - 1.0
    told = f"{more.threads} threads: {_percent(latency)} time a step, {_percent(cpu)} CPU time"
    if share > ENOUGH_OF_A_STEP and latency < -NOISE_SHARE:
        return more.threads, [f"{more.threads} threads: with one, {used}. {told}."]
    return 1, [f"One thread keeps up: {used}. {told}."]


def choice_of(bundle: Bundle, row: Row, threads: int, why: list[str], measured_at: str) -> Choice:
    """What is stored."""
    step = round((row.step_ms or 0.0) * bundle.manifest.sample_rate_hz / 1000.0)
    return Choice(
        model=bundle.manifest.name,
        sha256=bundle.manifest_sha256,
        machine=machine_id(),
        runtime=row.runtime,
        precision=row.precision,
        step_samples=None if step == bundle.manifest.step_samples else step,
        threads=threads,
        why=why,
        measured_at=measured_at,
    )


def _cpu(row: Row) -> float:
    return row.cpu_ms_per_audio_s or 0.0


def _bytes(row: Row) -> int:
    return row.file_bytes or 0


def _told(row: Row) -> str:
    return f"{row.runtime} {row.precision} at {row.step_ms:g} ms"


def _cost(row: Row) -> str:
    kilobytes = _bytes(row) / 1000.0
    return f"{row.cpu_s_per_audio_hour:.2f} s of CPU an hour of audio, {kilobytes:,.0f} kB"


def _percent(change: float) -> str:
    return f"{abs(change):.0%} {'more' if change >= 0 else 'less'}"
