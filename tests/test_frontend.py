"""The log-mel front end: against torchaudio, against itself in pieces, and its noise floor."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from crykit.nn import frontend as fe  # noqa: E402

pytestmark = pytest.mark.torch


def reference_mel_spectrogram():
    """torchaudio's MelSpectrogram; its compiled part wants CUDA libraries, its Python part none."""
    name = "torchaudio._extension"
    if "torchaudio" not in sys.modules:
        stand_in = types.ModuleType(name)
        stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        stand_in.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules[name] = stand_in
    torchaudio = pytest.importorskip("torchaudio", reason="needs the dev extra")
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=fe.SAMPLE_RATE_HZ,
        n_fft=fe.FFT_SAMPLES,
        win_length=fe.WINDOW_SAMPLES,
        hop_length=fe.HOP_SAMPLES,
        f_min=fe.MEL_MIN_HZ,
        f_max=fe.MEL_MAX_HZ,
        n_mels=fe.N_MELS,
        center=False,
    )


@pytest.mark.parametrize("dft", ["matmul", "fft"])
@pytest.mark.parametrize("level", [0.3, 1e-3])
def test_log_mel_equals_torchaudio(dft: str, level: float) -> None:
    samples = level * torch.randn(
        3, 10 * fe.STEP_SAMPLES, generator=torch.Generator().manual_seed(4)
    )
    front_end = fe.LogMelFrontEnd(dft)
    features, *_ = front_end(samples, *front_end.initial_state(3))
    # torchaudio centres the 400-sample window in 512: 56 zeros on either side.
    lead, trail = torch.zeros(3, fe.TAIL_SAMPLES + 56), torch.zeros(3, 56)
    mel = reference_mel_spectrogram()(torch.cat([lead, samples, trail], dim=1))
    expected = (10 * torch.log10(mel + 1e-10) + 60) / 20
    assert features[:, 0].shape == expected.shape
    assert (features[:, 0] - expected).abs().max() <= 1e-3


def test_two_transforms_agree() -> None:
    samples = 0.1 * torch.randn(1, 4 * fe.STEP_SAMPLES, generator=torch.Generator().manual_seed(5))
    one, two = fe.LogMelFrontEnd("matmul"), fe.LogMelFrontEnd("fft")
    a, *_ = one(samples, *one.initial_state())
    b, *_ = two(samples, *two.initial_state())
    assert (a - b).abs().max() < 1e-4


def test_steps_equal_whole() -> None:
    samples = 0.1 * torch.randn(2, 12 * fe.STEP_SAMPLES, generator=torch.Generator().manual_seed(6))
    front_end = fe.LogMelFrontEnd()
    whole, *after_whole = front_end(samples, *front_end.initial_state(2))
    state, parts, at = front_end.initial_state(2), [], 0
    for steps in (1, 4, 2, 5):
        end = at + steps * fe.STEP_SAMPLES
        part, *state = front_end(samples[:, at:end], *state)
        parts.append(part)
        at = end
    assert (torch.cat(parts, dim=3) - whole).abs().max() <= 1e-5
    for left, right in zip(after_whole, state, strict=True):
        assert (left - right).abs().max() <= 1e-5


def test_noise_floor_is_the_weighted_harmonic_mean_of_amplitude() -> None:
    """Against the definition, written out slowly in double precision."""
    generator = torch.Generator().manual_seed(7)
    samples = 0.05 * torch.randn(1, 3 * fe.STEP_SAMPLES, generator=generator)
    front_end = fe.LogMelFrontEnd()
    features, *_ = front_end(samples, *front_end.initial_state())
    log_mel, contrast = features[0].double().numpy()
    decay = np.exp(-0.01 / fe.FLOOR_TIME_CONSTANT_S)
    for frame in (0, 1, 15, 16, 17, 47):
        weights = decay ** np.arange(frame, -1, -1)
        inverse = (weights * 10 ** -log_mel[:, : frame + 1]).sum(1) / weights.sum()
        floor = -np.log10(inverse)
        np.testing.assert_allclose(contrast[:, frame], log_mel[:, frame] - floor, atol=1e-4)


def test_floor_follows_the_room_and_not_the_cry() -> None:
    rng = np.random.default_rng(8)
    n = 60 * fe.STEP_SAMPLES
    samples = 0.001 * rng.standard_normal(n)
    loud = slice(40 * fe.STEP_SAMPLES, n)
    samples[loud] += 0.1 * rng.standard_normal(n - loud.start)
    front_end = fe.LogMelFrontEnd()
    audio = torch.from_numpy(samples).float()[None]
    features, *_ = front_end(audio, *front_end.initial_state())
    contrast_db = 20 * features[0, 1].mean(0).numpy()
    assert abs(contrast_db[300:640].mean()) < 6  # the room alone stands at its own floor
    assert contrast_db[645:700].mean() > 25  # the first half second of a sound 40 dB over it
    assert contrast_db[-50:].mean() > 12  # and it still stands out three seconds later


def test_unknown_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="matmul"):
        fe.LogMelFrontEnd("wavelet")


def test_digital_silence_is_finite() -> None:
    front_end = fe.LogMelFrontEnd()
    features, *state = front_end(torch.zeros(1, 2 * fe.STEP_SAMPLES), *front_end.initial_state())
    assert torch.isfinite(features).all()
    assert all(torch.isfinite(s).all() for s in state)
