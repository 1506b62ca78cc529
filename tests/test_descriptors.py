"""Descriptors and pitch of synthetic sounds whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crykit.errors import InputError
from crykit_train.understand.descriptors import (
    FFT_SIZE,
    NAMES,
    SAMPLE_RATE_HZ,
    band_centres_hz,
    describe,
    describe_all,
    erb_filters,
    erb_hz,
    erb_number,
)
from crykit_train.understand.pitch import yin

SECONDS = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


def tone(hz: float, amplitude: float = 0.1) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * SECONDS)


def harmonics(hz: float, orders: range = range(1, 9)) -> np.ndarray:
    return 0.05 * sum(np.sin(2 * np.pi * k * hz * SECONDS + k) / k for k in orders)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return 0.1 * np.random.default_rng(5).standard_normal(2 * SAMPLE_RATE_HZ)


# --- level ------------------------------------------------------------------------------------


def test_a_full_scale_sine_is_3_db_under_full_scale() -> None:
    assert describe(tone(1000, 1.0))["level"] == pytest.approx(-3.0103, abs=1e-3)


def test_level_and_bands_follow_the_gain_and_nothing_else_does(noise: np.ndarray) -> None:
    loud, soft = describe(noise), describe(0.1 * noise)
    for name in NAMES:
        moves = name == "level" or (name.startswith("energy") and "variab" not in name)
        if not math.isnan(loud[name]):
            assert loud[name] - soft[name] == pytest.approx(20.0 if moves else 0.0, abs=1e-6), name


def test_level_varies_as_much_as_the_gain_does() -> None:
    """Half the time 12 dB lower: the quartiles lie on the two levels."""
    gain = np.where(SECONDS < 0.5, 1.0, 10 ** (-12 / 20))
    assert describe(gain * tone(1000))["level variability"] == pytest.approx(12.0, abs=0.1)
    assert describe(tone(1000))["level variability"] < 0.1


def test_padding_changes_neither_spectrum_nor_variability() -> None:
    plain = describe(harmonics(300))
    padded = describe(np.concatenate([harmonics(300), np.zeros(3 * SAMPLE_RATE_HZ)]))
    loudest = max((n for n in NAMES if n.startswith("energy")), key=lambda name: plain[name])
    for name in ("centroid", "pitch", "level variability", loudest):
        assert padded[name] == pytest.approx(plain[name], rel=0.02, abs=0.2), name


# --- bands ------------------------------------------------------------------------------------


def test_the_erb_scale_is_that_of_glasberg_and_moore() -> None:
    """Their equation 3: at f kHz a filter is 24.7 (4.37 f + 1) Hz wide, one step of the scale."""
    for hz in (100.0, 1000.0, 4000.0):
        width = 24.7 * (4.37 * hz / 1000.0 + 1.0)
        step = float(erb_number(hz + width / 2)) - float(erb_number(hz - width / 2))
        assert step == pytest.approx(1.0, rel=0.02)
        assert float(erb_hz(erb_number(hz))) == pytest.approx(hz)


def test_no_power_is_counted_twice() -> None:
    hz = np.fft.rfftfreq(FFT_SIZE, 1 / SAMPLE_RATE_HZ)
    centres = band_centres_hz()
    inside = (hz >= centres[0]) & (hz <= centres[-1])
    np.testing.assert_allclose(erb_filters().sum(0)[inside], 1.0, atol=1e-9)


def test_bands_add_up_to_the_level() -> None:
    found = describe(harmonics(400))
    bands = [v for k, v in found.items() if k.startswith("energy") and "variab" not in k]
    total = 10 * np.log10(np.sum(10 ** (np.array(bands) / 10)))
    assert total == pytest.approx(found["level"], abs=0.1)


@pytest.mark.parametrize("band", [4, 7, 11])
def test_a_tone_lights_its_own_band(band: int) -> None:
    found = describe(tone(float(band_centres_hz()[band])))
    bands = np.array([v for k, v in found.items() if k.startswith("energy") and "vari" not in k])
    assert bands.argmax() == band
    assert bands[band] == pytest.approx(found["level"], abs=0.5)
    assert np.delete(bands, [band - 1, band, min(band + 1, 11)]).max() < bands[band] - 25


# --- spectrum ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [300.0, 1000.0, 5000.0])
def test_the_centroid_of_a_tone_is_its_frequency(hz: float) -> None:
    found = describe(tone(hz))
    assert found["centroid"] == pytest.approx(hz, rel=0.01)
    assert found["centroid variability"] < 5.0
    assert found["spectral variation"] < 0.01


def test_the_centroid_of_white_noise_is_half_way(noise: np.ndarray) -> None:
    found = describe(noise)
    assert found["centroid"] == pytest.approx(4000, rel=0.03)
    assert found["spectral variation"] > 0.1


def test_centroid_variability_of_two_tones_in_turn_is_their_distance() -> None:
    sound = np.where(SECONDS < 0.5, tone(1000), tone(3000))
    assert describe(sound)["centroid variability"] == pytest.approx(2000, rel=0.01)


# --- pitch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [80.0, 123.4, 220.0, 437.0, 911.0, 1500.0])
def test_yin_finds_the_pitch_of_harmonic_tones(hz: float) -> None:
    track = yin(harmonics(hz, range(1, min(9, int(7000 / hz)))))
    assert track.voiced.mean() > 0.95
    assert np.median(track.hz[track.voiced]) == pytest.approx(hz, rel=0.005)
    assert np.mean(np.abs(track.hz[track.voiced] / hz - 1) < 0.01) > 0.99


def test_yin_hears_the_missing_fundamental() -> None:
    track = yin(harmonics(300, range(2, 7)))
    assert np.nanmedian(track.hz) == pytest.approx(300, rel=0.005)


def test_yin_follows_a_glide() -> None:
    rate = np.linspace(300, 600, SAMPLE_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(rate) / SAMPLE_RATE_HZ
    track = yin(sum(np.sin(k * phase) / k for k in range(1, 6)) * 0.1)
    middle = np.arange(len(track.hz)) * 160 + 256  # of the window that is compared
    expected = 300 + 300 * middle / SAMPLE_RATE_HZ
    inside = track.voiced
    assert inside.mean() > 0.9
    assert np.median(np.abs(track.hz[inside] / expected[inside] - 1)) < 0.03


def test_yin_agrees_with_the_sum_written_out() -> None:
    """The difference function by loops, for one frame."""
    from crykit_train.understand.pitch import WINDOW_SAMPLES, _difference

    frame = np.random.default_rng(1).standard_normal(WINDOW_SAMPLES + 60)
    slow = [
        sum((frame[j] - frame[j + lag]) ** 2 for j in range(WINDOW_SAMPLES)) for lag in range(51)
    ]
    np.testing.assert_allclose(_difference(frame[None], 50)[0], slow, atol=1e-8)


def test_noise_and_silence_have_no_pitch(noise: np.ndarray) -> None:
    assert yin(noise).voiced.mean() < 0.02
    assert not yin(np.zeros(8000)).voiced.any()
    silent = describe(np.zeros(8000))
    assert math.isnan(silent["pitch"]) and silent["level"] == -100.0
    assert silent["periodicity"] == 0.0


def test_pitch_is_told_in_octaves_to_one_kilohertz() -> None:
    found = describe(harmonics(500))
    assert found["pitch"] == pytest.approx(-1.0, abs=0.01)
    assert found["pitch variability"] < 0.01
    assert found["periodicity"] > 0.95


def test_a_clip_with_hardly_a_voiced_frame_has_no_pitch(noise: np.ndarray) -> None:
    blip = noise.copy()
    blip[:2000] = harmonics(500)[:2000]
    assert 0 < yin(blip).voiced.mean() < 0.1
    assert math.isnan(describe(blip)["pitch"])


# --- edges ------------------------------------------------------------------------------------


def test_a_clip_shorter_than_a_frame_is_described(noise: np.ndarray) -> None:
    found = describe(noise[:50])
    assert set(found) == set(NAMES)
    assert all(np.isfinite(v) for k, v in found.items() if not k.startswith("pitch"))


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.0, np.nan]), np.zeros((2, 5))])
def test_refuses_what_is_no_sound(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="finite samples"):
        describe(bad)


def test_refuses_a_pitch_range_that_the_window_cannot_hold() -> None:
    with pytest.raises(InputError, match="lowest"):
        yin(np.zeros(4000), lowest_hz=10.0)


def test_many_clips_give_a_column_each(noise: np.ndarray) -> None:
    columns = describe_all([noise, tone(440)])
    assert set(columns) == set(NAMES)
    assert columns["centroid"].shape == (2,)
    assert columns["centroid"][1] == pytest.approx(440, rel=0.01)
