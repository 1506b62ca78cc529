"""Long recordings with ground truth: how a detector and its gate do on them, and which gate to use.

A folder of streams holds ``NAME.flac`` (or .wav) with ``NAME.csv`` beside it: a row an event, with
``onset_s``, ``offset_s`` and ``event``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from crykit.errors import InputError
from crykit.gate import EventGate, GateClosed, GateOpened, GateSettings
from crykit.nn.frontend import SAMPLE_RATE_HZ, LogMelFrontEnd
from crykit.nn.student import FRAME_SAMPLES, CryStudent
from crykit.scoring import (
    EventScore,
    Span,
    poisson_upper_bound,
    read_reference,
    score_events,
    total,
)
from crykit_train.evaluate import frame_probabilities

Update = Callable[[int, int], None]

# A frame's level only describes an event; it decides nothing, so a search needs none.
NO_LEVEL_DBFS = 0.0


@dataclass(frozen=True)
class Stream:
    """One recording, as the network hears it: a probability every 40 ms, and the truth."""

    name: str
    duration_s: float
    probabilities: NDArray[np.float32]
    reference: list[Span]


def read_streams(
    folders: Iterable[Path], model: CryStudent, update: Update | None = None
) -> list[Stream]:
    """Run the network over every stream of the folders.

    Raises:
        InputError: no stream, one without truth, or one that is no audio.
    """
    paths = sorted(
        p for f in folders for p in Path(f).rglob("*.*") if p.suffix in (".flac", ".wav")
    )
    if not paths:
        raise InputError("streams: no .flac or .wav in the folder; build some or give another")
    model.eval()
    front_end = LogMelFrontEnd("fft")
    streams: list[Stream] = []
    for number, path in enumerate(paths):
        truth = path.with_suffix(".csv")
        if not truth.is_file():
            raise InputError(f"{path}: no {truth.name} beside it with the truth; add it")
        try:
            samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path}: cannot be read as audio ({error})") from None
        mono = samples.mean(axis=1)
        if rate_hz != SAMPLE_RATE_HZ:
            mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
        (probabilities,) = frame_probabilities(model, front_end, [mono])
        streams.append(
            Stream(path.stem, len(mono) / SAMPLE_RATE_HZ, probabilities, read_reference(truth))
        )
        if update:
            update(number + 1, len(paths))
    return streams


def detect(stream: Stream, gate: GateSettings) -> tuple[list[Span], list[tuple[float, float]]]:
    """Events of a stream as spans in seconds, and (onset, detection) of each opening."""
    events = EventGate(gate, FRAME_SAMPLES, SAMPLE_RATE_HZ)
    found = events.feed(stream.probabilities, [NO_LEVEL_DBFS] * len(stream.probabilities))
    found += events.flush()
    spans = [
        (e.onset_sample / SAMPLE_RATE_HZ, min(e.offset_sample / SAMPLE_RATE_HZ, stream.duration_s))
        for e in found
        if isinstance(e, GateClosed)
    ]
    openings = [
        (e.onset_sample / SAMPLE_RATE_HZ, e.detected_sample / SAMPLE_RATE_HZ)
        for e in found
        if isinstance(e, GateOpened)
    ]
    return spans, openings


def score_streams(streams: Sequence[Stream], gate: GateSettings) -> EventScore:
    """The streams' scores added up."""
    return total(score_events(s.reference, detect(s, gate)[0], s.duration_s) for s in streams)


def started_delays_s(streams: Sequence[Stream], gate: GateSettings) -> list[float]:
    """From a bout's onset to the moment that `cry_started` can be written, of each bout found.

    The first opening that falls in the bout counts, the algorithm's waiting included.
    """
    delays: list[float] = []
    for stream in streams:
        _, openings = detect(stream, gate)
        for onset_s, offset_s in stream.reference:
            times = [told for at, told in openings if at < offset_s and told > onset_s]
            if times:
                delays.append(max(0.0, min(times) - onset_s))
    return delays


def summarise_streams(streams: Sequence[Stream], gate: GateSettings) -> dict[str, Any]:
    """What a table needs: recall, false alarms an hour with a 95% upper bound, time F1, delays."""
    score = score_streams(streams, gate)
    delays = started_delays_s(streams, gate)
    hours = score.duration_s / 3600
    return {
        "streams": len(streams),
        "hours": round(hours, 2),
        "bouts": score.ref,
        "found": score.hit,
        "event_recall": score.recall and round(score.recall, 4),
        "false_alarms": score.false_alarms,
        "false_alarms_per_hour": round(score.false_alarms / hours, 3),
        "false_alarms_per_hour_upper95": round(poisson_upper_bound(score.false_alarms, hours), 3),
        "time_precision": round(score.time_precision, 4),
        "time_recall": round(score.time_recall, 4),
        "time_f1": round(score.time_f1, 4),
        "onset_delay_median_s": score.delay_median_s and round(score.delay_median_s, 3),
        "started_delay_median_s": round(float(np.median(delays)), 3) if delays else None,
    }


# The grid of the search. The off threshold is a share of the on threshold, and may be small: once a
# cry is certain, a faint remainder of it is more likely cry than not.
CHOICES: dict[str, Sequence[float]] = {
    "on_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "off_threshold": (0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.2, 0.4, 0.7),
    "smoothing_ms": (0.0, 100.0, 200.0, 400.0),
    "min_on_ms": (400.0, 640.0, 800.0, 1000.0, 1280.0),
    "min_off_ms": (400.0, 800.0, 1400.0),
    "merge_gap_ms": (1000.0, 2000.0, 3000.0),
}
# Coordinate search finds the best of its neighbourhood; two starts, with and without smoothing.
STARTS: tuple[dict[str, float], ...] = (
    {"on_threshold": 0.8, "off_threshold": 0.05, "smoothing_ms": 0.0},
    {"on_threshold": 0.6, "off_threshold": 0.07, "smoothing_ms": 200.0},
)
START_REST = {"min_on_ms": 1000.0, "min_off_ms": 800.0, "merge_gap_ms": 3000.0}


def choose_gate(
    streams: Sequence[Stream],
    *,
    max_false_alarms_per_hour: float = 0.5,
    max_started_delay_s: float = 1.8,
    update: Update | None = None,
) -> GateSettings:
    """The gate with the best mean of event recall and time F1 that keeps within the limits.

    Coordinate search over a coarse grid, twice round, from two starts. Call it on streams of the
    validation split only: it is tuning.
    """
    known: dict[tuple[float, ...], float] = {}

    def merit(setting: dict[str, float]) -> float:
        key = tuple(setting.values())
        if key not in known:
            gate = _settings(setting)
            score = score_streams(streams, gate)
            alarms = score.false_alarms_per_hour or 0.0
            delays = started_delays_s(streams, gate)
            late = float(np.median(delays)) if delays else 0.0
            known[key] = (
                ((score.recall or 0.0) + score.time_f1) / 2
                - 0.1 * max(0.0, alarms - max_false_alarms_per_hour)
                - max(0.0, late - max_started_delay_s)
            )
        return known[key]

    turns = 2 * len(CHOICES)
    found: list[dict[str, float]] = []
    for number, start in enumerate(STARTS):
        current = {**start, **START_REST}
        for turn in range(turns):
            name = list(CHOICES)[turn % len(CHOICES)]
            # Of equals the strictest wins: the higher threshold, the longer minimum.
            current = max(
                ({**current, name: value} for value in CHOICES[name]),
                key=lambda s: (round(merit(s), 4), s[name]),  # noqa: B023
            )
            if update:
                update(number * turns + turn + 1, turns * len(STARTS))
        found.append(current)
    return _settings(max(found, key=merit))


def _settings(setting: dict[str, float]) -> GateSettings:
    """``off_threshold`` is searched as a share of ``on_threshold``."""
    off = round(setting["on_threshold"] * setting["off_threshold"], 4)
    return GateSettings(**{**setting, "off_threshold": off})
