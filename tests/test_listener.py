"""The engine on the shipped model: chunked equals whole, the clock, and the end of the sound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.events import CryEvent, CryStarted
from crykit.gate import SILENCE_DBFS
from crykit.listener import FrameBlock, Listener, level_dbfs
from crykit.offline import make_listener
from crykit.runtime import Runtime, open_runtime

STEP = 2560
FRAME = 640


@pytest.fixture(scope="module")
def runtime(bundle: Bundle) -> Runtime:
    return open_runtime(bundle)


@pytest.fixture
def listener(bundle: Bundle, runtime: Runtime) -> Listener:
    return make_listener(bundle, runtime)


def eager(listener: Listener, probabilities: list[float]) -> None:
    """Open the gate on what this model says of the sound, whatever its thresholds are."""
    on = float(np.quantile(probabilities, 0.7))
    changes = {"on_threshold": on, "off_threshold": on * 0.98, "min_on_ms": 120.0}
    rest = {"min_off_ms": 80.0, "merge_gap_ms": 160.0, "smoothing_ms": 0.0}
    listener.gate.__init__(
        listener.gate.settings.override(**changes, **rest), FRAME, listener.sample_rate_hz
    )


def hear(listener: Listener, samples: np.ndarray, sizes) -> tuple[list, list[FrameBlock]]:
    blocks: list[FrameBlock] = []
    listener.on_frames = blocks.append
    listener.reset()
    found, start = [], 0
    while start < len(samples):
        size = next(sizes)
        found += listener.feed(samples[start : start + size])
        start += size
    return found + listener.flush(), blocks


def always(size: int):
    while True:
        yield size


def randomly(seed: int, largest: int):
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(0, largest))


def without_ids(found: list) -> list:
    return [dataclasses.replace(event, id="") for event in found]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_chunked_is_whole(listener: Listener, cry: np.ndarray, seed: int) -> None:
    samples = cry[: len(cry) - 777]
    _, blocks = hear(listener, samples, always(len(samples)))
    eager(listener, np.concatenate([b.cry_probability for b in blocks]).tolist())
    whole, expected = hear(listener, samples, always(len(samples)))
    cut, got = hear(listener, samples, randomly(seed, [700, 5000, 40_000][seed]))
    assert without_ids(cut) == without_ids(whole)
    assert any(isinstance(event, CryEvent) for event in whole)
    assert [b.first_sample for b in got] == [b.first_sample for b in expected]
    for name in ("cry_probability", "embedding", "log_mel", "level_dbfs"):
        np.testing.assert_allclose(
            np.concatenate([getattr(b, name) for b in got]),
            np.concatenate([getattr(b, name) for b in expected]),
            atol=1e-5,
        )


def test_every_started_cry_finishes_with_its_id(listener: Listener, cry: np.ndarray) -> None:
    _, blocks = hear(listener, cry, always(8000))
    eager(listener, np.concatenate([b.cry_probability for b in blocks]).tolist())
    found, _ = hear(listener, cry, always(8000))
    assert len(found) >= 2
    for started, ended in zip(found[::2], found[1::2], strict=True):
        assert isinstance(started, CryStarted) and isinstance(ended, CryEvent)
        assert started.id == ended.id and len(ended.id) == 26
        assert started.onset_s == ended.onset_s < started.detected_s <= len(cry) / 16_000
        assert ended.offset_s <= len(cry) / 16_000


@pytest.mark.parametrize(("n", "frames"), [(1, 1), (640, 1), (641, 2), (2560, 4), (2561, 5)])
def test_the_last_step_is_padded_and_its_padding_not_reported(
    listener: Listener, cry: np.ndarray, n: int, frames: int
) -> None:
    _, blocks = hear(listener, cry[:n], always(n))
    assert sum(len(b.cry_probability) for b in blocks) == frames
    assert sum(len(b.level_dbfs) for b in blocks) == frames
    assert sum(len(b.log_mel) for b in blocks) == -(-n // 160)
    assert listener.samples_scored == n


def test_reset_is_deterministic_and_sets_the_clock(listener: Listener, cry: np.ndarray) -> None:
    first = hear(listener, cry[:STEP], always(STEP))[1]
    listener.reset(first_sample=160_000)
    blocks: list[FrameBlock] = []
    listener.on_frames = blocks.append
    listener.feed(cry[:STEP])
    np.testing.assert_array_equal(blocks[0].cry_probability, first[0].cry_probability)
    assert blocks[0].first_sample == 160_000
    assert listener.samples_scored == 160_000 + STEP


def test_feeding_after_flush_is_a_mistake(listener: Listener) -> None:
    listener.flush()
    assert listener.flush() == []
    with pytest.raises(RuntimeError, match="reset"):
        listener.feed(np.zeros(10, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_samples_that_cannot_be_are_placed(listener: Listener, bad: float) -> None:
    samples = np.zeros(32_000, np.float32)
    samples[24_000] = bad
    with pytest.raises(InputError, match=r"at 1\.500 s"):
        listener.feed(samples)
    with pytest.raises(InputError, match="mono"):
        listener.feed(np.zeros((10, 2), np.float32))


def test_digital_silence_is_no_cry(listener: Listener) -> None:
    found, blocks = hear(listener, np.zeros(10 * 16_000, np.float32), always(16_000))
    probability = np.concatenate([b.cry_probability for b in blocks])
    assert np.isfinite(probability).all()
    assert np.isfinite(np.concatenate([b.log_mel for b in blocks])).all()
    assert {float(v) for b in blocks for v in b.level_dbfs} == {SILENCE_DBFS}


def test_levels_are_those_of_full_scale() -> None:
    t = np.arange(16_000) / 16_000
    sine = np.sin(2 * np.pi * 500 * t).astype(np.float32)
    np.testing.assert_allclose(level_dbfs(sine, FRAME), -3.01, atol=0.01)
    np.testing.assert_allclose(level_dbfs(0.01 * sine, FRAME), -43.01, atol=0.01)
