"""The shipped model on real recordings: what its card claims, through the real engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.dataset import Clip, read_clip, read_manifest
from crykit.events import CryEvent, CryStarted
from crykit.listener import FrameBlock
from crykit.offline import clip_probability, make_listener
from crykit.runtime import open_runtime
from crykit.scoring import EventScore, auc, read_reference, score_events, total

pytestmark = pytest.mark.data
RATE_HZ = 16_000
PRECISIONS = ("fp32", "int8")

Float32 = NDArray[np.float32]


def hear(bundle: Bundle, precision: str, samples: Float32) -> tuple[list[object], Float32]:
    """Events and frame probabilities of a recording from a fresh state."""
    listener = make_listener(bundle, open_runtime(bundle, "onnx", precision))
    frames: list[FrameBlock] = []
    listener.on_frames = frames.append
    events = [*listener.feed(samples), *listener.flush()]
    return events, np.concatenate([f.cry_probability for f in frames])


@pytest.fixture(scope="module")
def heard_streams(bundle: Bundle, data_root: Path) -> dict[str, tuple[EventScore, list[float]]]:
    """By precision: the streams' scores added up, and the delays until `cry_started`."""
    found = {}
    for precision in PRECISIONS:
        scores: list[EventScore] = []
        told_s: list[float] = []
        for path in sorted((data_root / "streams").glob("*.flac")):
            samples, _ = soundfile.read(path, dtype="float32")
            events, _ = hear(bundle, precision, samples)
            reference = read_reference(path.with_suffix(".csv"))
            spans = [(e.onset_s, e.offset_s) for e in events if isinstance(e, CryEvent)]
            scores.append(score_events(reference, spans, len(samples) / RATE_HZ))
            starts = [e for e in events if isinstance(e, CryStarted)]
            for onset_s, offset_s in reference:
                told = [
                    e.detected_s for e in starts if e.onset_s < offset_s and e.detected_s > onset_s
                ]
                told_s += [max(0.0, min(told) - onset_s)] if told else []
        found[precision] = (total(scores), told_s)
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_streams(heard_streams: dict[str, tuple[EventScore, list[float]]], precision: str) -> None:
    score, told_s = heard_streams[precision]
    assert score.recall is not None and score.recall >= 0.85
    assert score.false_alarms_per_hour is not None and score.false_alarms_per_hour <= 2.0
    assert score.time_f1 >= 0.80
    assert score.delay_median_s is not None and score.delay_median_s <= 1.0
    assert np.median(told_s) <= 2.0


def test_int8_costs_streams_next_to_nothing(
    heard_streams: dict[str, tuple[EventScore, list[float]]],
) -> None:
    fp32, int8 = (heard_streams[p][0] for p in PRECISIONS)
    assert abs(fp32.time_f1 - int8.time_f1) <= 0.01


@pytest.fixture(scope="module")
def clips(data_root: Path) -> list[Clip]:
    every = read_manifest(data_root / "manifest.csv")
    return [c for c in every if c.split == "test" and c.event != "unverified"]


def low_passed(samples: Float32, corner_hz: float) -> Float32:
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / RATE_HZ) > corner_hz] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def clip_scores(bundle: Bundle, clips: list[Clip]) -> dict[str, Float32]:
    """By condition, one score a clip: as it is, low-passed at 3.8 kHz, 20 dB quieter, in int8."""
    conditions = {
        "full": ("fp32", lambda x: x),
        "low": ("fp32", lambda x: low_passed(x, 3800.0)),
        "quiet": ("fp32", lambda x: x * np.float32(0.1)),
        "int8": ("int8", lambda x: x),
    }
    found: dict[str, Float32] = {}
    for name, (precision, alter) in conditions.items():
        listener = make_listener(bundle, open_runtime(bundle, "onnx", precision))
        frames: list[FrameBlock] = []
        listener.on_frames = frames.append
        scores: list[float] = []
        for clip in clips:
            frames.clear()
            listener.reset()
            listener.feed(alter(read_clip(clip)))
            listener.flush()
            probabilities = np.concatenate([f.cry_probability for f in frames])
            scores.append(clip_probability(probabilities, bundle.manifest.clip))
        found[name] = np.array(scores, np.float32)
    return found


def auc_of(clips: list[Clip], scores: Float32, against: str | None = None) -> float:
    picked = [c.event == "cry" or against in (None, c.event) for c in clips]
    labels = [c.event == "cry" for c, use in zip(clips, picked, strict=True) if use]
    return auc(labels, scores[picked])


def test_clips(clips: list[Clip], clip_scores: dict[str, Float32]) -> None:
    assert auc_of(clips, clip_scores["full"]) >= 0.997
    assert auc_of(clips, clip_scores["low"]) >= 0.996
    assert auc_of(clips, clip_scores["quiet"]) >= 0.992
    assert auc_of(clips, clip_scores["full"], "laugh") >= 0.98
    assert auc_of(clips, clip_scores["full"], "children") >= 0.98


def test_int8_costs_clips_next_to_nothing(
    clips: list[Clip], clip_scores: dict[str, Float32]
) -> None:
    assert abs(auc_of(clips, clip_scores["full"]) - auc_of(clips, clip_scores["int8"])) <= 0.002
