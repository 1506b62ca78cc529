"""The encoders' log-mel against torchaudio, and at its edges."""

from __future__ import annotations

import math
import sys
import types

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from crykit.nn.frontend import hz_to_mel  # noqa: E402
from crykit.nn.logmel import POWER_OFFSET, LogMel  # noqa: E402

pytestmark = pytest.mark.torch


def torchaudio_mel(n_mels: int):
    name = "torchaudio._extension"
    if "torchaudio" not in sys.modules:
        stand_in = types.ModuleType(name)
        stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        stand_in.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules[name] = stand_in
    torchaudio = pytest.importorskip("torchaudio", reason="needs the dev extra")
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        f_min=60.0,
        f_max=7_800.0,
        n_mels=n_mels,
        center=True,
        pad_mode="reflect",
    )


def noise(batch: int, n: int, level: float = 0.1):
    return level * torch.randn(batch, n, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("n_mels", [64, 80])
@pytest.mark.parametrize("level", [0.5, 1e-4])
def test_equals_torchaudio(n_mels: int, level: float) -> None:
    samples = noise(3, 16_037, level)
    expected = torch.log(torchaudio_mel(n_mels)(samples) + POWER_OFFSET)
    got = LogMel(n_mels)(samples)
    assert got.shape == (3, 1, n_mels, 101)
    assert torch.allclose(got[:, 0], expected, atol=1e-3)


@pytest.mark.parametrize("n", [1, 159, 160, 256, 257, 400, 511, 512, 16_000])
def test_every_length_gives_its_frames(n: int) -> None:
    log_mel = LogMel()(noise(2, n))
    assert log_mel.shape == (2, 1, 64, 1 + n // 160)
    assert bool(torch.isfinite(log_mel).all())


def test_silence_is_the_offset() -> None:
    assert torch.allclose(LogMel()(torch.zeros(1, 4000)), torch.tensor(math.log(POWER_OFFSET)))


def test_a_tone_is_loudest_in_its_own_band_and_frame() -> None:
    seconds = torch.arange(16_000) / 16_000
    hz = 1_000.0
    tone = 0.5 * torch.sin(2 * math.pi * hz * seconds)[None]
    log_mel = LogMel()(tone)[0, 0]
    low, high = hz_to_mel(60.0), hz_to_mel(7_800.0)
    band = (hz_to_mel(hz) - low) / (high - low) * 65 - 1
    assert abs(int(log_mel[:, 50].argmax()) - band) <= 1
    click = torch.zeros(1, 16_000)
    click[0, 37 * 160] = 1.0
    assert int(LogMel()(click)[0, 0].sum(0).argmax()) == 37


def test_no_band_is_empty() -> None:
    for n_mels in (64, 80):
        assert bool((LogMel(n_mels).mel.sum(0) > 0).all())


def test_doubling_the_level_adds_the_logarithm_of_four() -> None:
    front_end, samples = LogMel(), noise(1, 8_000)
    difference = front_end(2 * samples) - front_end(samples)
    assert torch.allclose(difference, torch.tensor(math.log(4.0)), atol=1e-3)


def test_half_precision_around_it_does_not_coarsen_it() -> None:
    front_end, samples = LogMel(), noise(1, 8_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = front_end(samples)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, front_end(samples))
