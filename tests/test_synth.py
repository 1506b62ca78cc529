"""The synthetic cry, household and night: what they claim is measured on the samples themselves."""

from __future__ import annotations

import csv
import subprocess
import sys
import time

import numpy as np
import pytest

from crykit.errors import UsageError
from crykit.scoring import read_reference
from crykit.synth import SAMPLE_RATE_HZ, Night, Voice, compose_night, synthetic_cry
from crykit.synth.cry import EXPIRATION_S, PAUSE_S, breathe
from crykit.synth.dsp import active_rms, convolve, fir, rms, to_samples
from crykit.synth.night import FLOOR_DBFS, KINDS, NightEvent

VOICE = Voice(
    f0_hz=450.0,
    tract_scale=1.0,
    tilt=0.4,
    vibrato_hz=6.0,
    vibrato_depth=0.01,
    jitter=0.012,
    shimmer=0.05,
    breath=0.05,
    roughness=0.0,
)


def db(value: float) -> float:
    return 20 * np.log10(value + 1e-12)


def spectrum(x: np.ndarray, n: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and mean power of the frames within 20 dB of the loud ones."""
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(float), n)[:: n // 2]
    power = np.abs(np.fft.rfft(frames * np.blackman(n), axis=1)) ** 2
    energy = power.sum(axis=1)
    loud = power[energy > 0.01 * np.percentile(energy, 95)].mean(axis=0)
    return np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ), loud


def pitches_hz(x: np.ndarray) -> np.ndarray:
    """F0 of the loud, periodic 40 ms frames, by the autocorrelation's peak in 200-1800 Hz."""
    size = to_samples(0.04)
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(float), size)[:: size // 2]
    energy = (frames**2).sum(axis=1)
    frames = frames[energy > 0.1 * np.percentile(energy, 95)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, 4 * size, axis=1)) ** 2
    correlation = np.fft.irfft(power, axis=1)[:, :size]
    window = np.hanning(size)
    bias = np.fft.irfft(np.abs(np.fft.rfft(window, 4 * size)) ** 2)[:size]
    correlation = correlation / (correlation[:, :1] * bias / bias[0] + 1e-12)
    shortest, longest = SAMPLE_RATE_HZ // 1800, SAMPLE_RATE_HZ // 200
    found = []
    for row in correlation:
        peak = row[shortest:longest].max()
        if peak > 0.6:
            # The first lag that comes near the best: later ones are its multiples.
            inner = row[shortest:longest]
            rising = (inner[1:-1] > inner[:-2]) & (inner[1:-1] >= inner[2:])
            lags = np.flatnonzero(rising & (inner[1:-1] > 0.9 * peak)) + 1 + shortest
            if len(lags):
                found.append(SAMPLE_RATE_HZ / lags[0])
    return np.array(found)


@pytest.fixture(scope="module")
def night() -> Night:
    return compose_night(7)


def test_cry_is_deterministic_and_seeded() -> None:
    first, again, other = (synthetic_cry(4.0, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32 and first.shape == (64_000,)


@pytest.mark.parametrize("duration_s", [0.3, 0.77, 5.0])
def test_cry_has_the_length_asked_for_and_sounds_at_both_ends(duration_s: float) -> None:
    cry = synthetic_cry(duration_s, 1)
    assert len(cry) == round(duration_s * SAMPLE_RATE_HZ)
    edge = to_samples(0.15)
    assert db(rms(cry[:edge])) > -60 and db(rms(cry[-edge:])) > -60


def test_cry_refuses_what_is_too_short() -> None:
    for duration_s in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="at least 0.3 s"):
            synthetic_cry(duration_s, 1)


@pytest.mark.parametrize("level_dbfs", [-45.0, -20.0, -3.0])
def test_cry_level_and_no_clipping(level_dbfs: float) -> None:
    for seed in range(5):
        cry = synthetic_cry(6.0, seed, level_dbfs=level_dbfs)
        peak = float(np.max(np.abs(cry)))
        assert np.all(np.isfinite(cry)) and peak <= 0.901
        if peak < 0.899:
            assert db(active_rms(cry)) == pytest.approx(level_dbfs, abs=0.1)
        else:
            assert db(active_rms(cry)) < level_dbfs


def test_cry_does_not_alias() -> None:
    for seed in range(8):
        f, power = spectrum(synthetic_cry(6.0, seed))
        assert 10 * np.log10(power[f > 7900].sum() / power.sum()) < -60


def test_f0_lies_in_the_range_of_infant_phonation() -> None:
    found = np.concatenate([pitches_hz(synthetic_cry(8.0, seed)) for seed in range(8)])
    phonation = found[(found > 300) & (found < 750)]
    assert len(found) > 500
    assert len(phonation) > 0.75 * len(found)
    assert 370 < np.median(phonation) < 560


def test_hyperphonation_shifts_f0_over_1_khz_now_and_then() -> None:
    found = np.concatenate([pitches_hz(synthetic_cry(8.0, seed)) for seed in range(12)])
    share = np.mean((found > 1000) & (found < 1800))
    assert 0.002 < share < 0.15


def test_melody_moves() -> None:
    found = pitches_hz(synthetic_cry(8.0, 2, voice=VOICE))
    low, high = np.percentile(found[found < 800], [5, 95])
    assert 12 * np.log2(high / low) > 3  # semitones


def test_formants_of_an_infant_tract_stand_out() -> None:
    """The long-term spectrum peaks near 1.1 and 3.3 kHz, over the valley between and beyond."""
    total = np.zeros(513)
    for seed in range(10):
        f, power = spectrum(synthetic_cry(8.0, seed, voice=VOICE))
        total += power / power.sum()
    width = 60  # some 900 Hz: wider than the spacing of harmonics
    # Against the source's tilt, so that a formant and not the slope is found.
    level_db = 10 * np.log10(np.convolve(total * (f / 1000) ** 1.2, np.ones(width), "same"))

    def mean_db(low_hz: float, high_hz: float) -> float:
        return float(level_db[(f >= low_hz) & (f < high_hz)].mean())

    first, valley, second, above = (
        mean_db(900, 1300),
        mean_db(1900, 2500),
        mean_db(2900, 3500),
        mean_db(4100, 4500),
    )
    assert first > valley + 3
    assert second > valley + 3
    assert second > above + 1


def test_breathing_has_cries_pauses_and_gasps() -> None:
    for seed in range(20):
        phases = breathe(12.0, np.random.default_rng(seed))
        cries = [p for p in phases if not p.inspiration]
        gasps = [p for p in phases if p.inspiration]
        assert len(gasps) == len(cries) - 1
        assert cries[0].start_s == 0.0
        assert cries[-1].start_s + cries[-1].length_s == pytest.approx(12.0)
        for before, gasp, after in zip(cries, gasps, cries[1:], strict=False):
            pause_s = after.start_s - before.start_s - before.length_s
            # Fitting the bout to its length stretches everything by a few percent.
            assert 0.8 * PAUSE_S[0] <= pause_s <= 1.1 * PAUSE_S[1]
            assert before.start_s + before.length_s <= gasp.start_s
            assert gasp.start_s + gasp.length_s <= after.start_s
        assert all(0.8 * EXPIRATION_S[0] <= c.length_s <= 1.1 * EXPIRATION_S[1] for c in cries)


def test_a_bout_grows_louder() -> None:
    grown = []
    for seed in range(10):
        cry = synthetic_cry(10.0, seed)
        grown.append(db(rms(cry[80_000:128_000])) - db(rms(cry[:32_000])))
    assert np.mean(grown) > 2


@pytest.mark.parametrize("name", list(KINDS))
def test_household_sounds(name: str) -> None:
    kind = KINDS[name]
    length_s = kind.length_s[0]
    sound = kind.sound(length_s, 5)
    np.testing.assert_array_equal(sound, kind.sound(length_s, 5))
    assert not np.array_equal(sound, kind.sound(length_s, 6))
    # The voices are made in steps of 2.5 ms.
    assert abs(len(sound) - to_samples(length_s)) <= 40
    assert np.all(np.isfinite(sound)) and np.max(np.abs(sound)) <= 0.901
    assert -35 < db(active_rms(sound)) < -19
    f, power = spectrum(sound)
    assert 10 * np.log10(power[f > 7900].sum() / power.sum()) < -30


def test_convolve_equals_direct_convolution() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(50_001).astype(np.float32)
    taps = fir(lambda f: 1.0 / (1.0 + f / 500.0), 256)
    expected = np.convolve(x.astype(float), taps)[: len(x)]
    np.testing.assert_allclose(convolve(x, taps, block=700), expected, atol=1e-4)


def test_night_is_bit_reproducible(night: Night) -> None:
    again = compose_night(7)
    np.testing.assert_array_equal(night.samples, again.samples)
    assert night.events == again.events
    assert compose_night(8).events != night.events


def test_night_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from crykit.synth import compose_night;"
        "print(hashlib.sha256(compose_night(7, 60).samples.tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) == 65


@pytest.mark.parametrize("seed", range(3))
def test_night_holds_what_it_promises(seed: int) -> None:
    night = compose_night(seed)
    assert night.samples.shape == (9_600_000,) and night.samples.dtype == np.float32
    assert np.all(np.isfinite(night.samples)) and np.max(np.abs(night.samples)) <= 0.901
    cries = night.cries
    assert 5 <= len(cries) <= 8
    assert sum(c.snr_db == 8.0 for c in cries) == 1
    assert all(c.snr_db == 8.0 or 10 <= c.snr_db <= 30 for c in cries)
    assert all(5 <= c.offset_s - c.onset_s <= 20.001 for c in cries)
    # Further apart than the gap at which a scorer would merge them into one bout.
    assert all(b.onset_s - a.offset_s > 3.5 for a, b in zip(cries, cries[1:], strict=False))
    assert {e.orig_label for e in night.events} > {f"synthetic_{name}" for name in KINDS}
    assert all("synthetic" in text for e in night.events for text in (e.orig_label, e.group))
    assert all(0 < e.onset_s < e.offset_s < night.duration_s for e in night.events)
    assert [e.onset_s for e in night.events] == sorted(e.onset_s for e in night.events)


def frames_db(night: Night, event: NightEvent, margin_s: float = 0.0) -> np.ndarray:
    a = to_samples(event.onset_s - margin_s)
    b = to_samples(event.offset_s + margin_s)
    frames = night.samples[a:b].astype(float)
    frames = frames[: len(frames) // 160 * 160].reshape(-1, 160)
    return 10 * np.log10((frames**2).mean(axis=1) + 1e-12)


def floor_db(night: Night) -> float:
    """RMS of the stretches in which nothing was placed."""
    free = np.ones(len(night.samples), bool)
    for e in night.events:
        free[to_samples(e.onset_s) : to_samples(e.offset_s + 0.5)] = False
    return db(rms(night.samples[free]))


def test_floor_level(night: Night) -> None:
    assert floor_db(night) == pytest.approx(FLOOR_DBFS, abs=1.0)


def test_truth_matches_the_audio(night: Night) -> None:
    """Inside a cry the energy stands over the floor by its SNR; just before it there is none."""
    floor = floor_db(night)
    for cry in night.cries:
        inside = frames_db(night, cry)
        loud = inside[inside > np.percentile(inside, 95) - 20]
        level = 10 * np.log10(np.mean(10 ** (loud / 10)))
        assert level - floor > cry.snr_db - 2.5
        assert level - floor < cry.snr_db + 3.5
    for cry in (c for c in night.cries if not c.overlap and c.snr_db > 14):
        first = to_samples(cry.onset_s)
        before = db(rms(night.samples[first - 4800 : first]))
        after = db(rms(night.samples[first : first + 4800]))
        assert before < floor + 3 and after > before + 3


def test_overlap_flag(night: Night) -> None:
    for e in night.events:
        shares = any(
            e is not o and e.onset_s < o.offset_s and o.onset_s < e.offset_s for o in night.events
        )
        assert e.overlap == int(shares)
    groups = {"synthetic:fan", "synthetic:clock_tick"}
    cries = night.cries
    for e in night.events:
        if e.event != "cry" and e.group not in groups:
            assert not any(e.onset_s < c.offset_s and c.onset_s < e.offset_s for c in cries)


@pytest.mark.parametrize("duration_s", [30.0, 61.3, 120.0])
def test_short_nights(duration_s: float) -> None:
    night = compose_night(3, duration_s)
    assert len(night.samples) == to_samples(duration_s)
    assert len(night.cries) >= 1
    assert all(e.offset_s < duration_s for e in night.events)


def test_an_impossible_night_is_refused() -> None:
    for duration_s in (0.0, 29.9, 4000.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="30 to 3600 s"):
            compose_night(1, duration_s)


def test_save_writes_sound_and_truth(night: Night, tmp_path) -> None:
    import soundfile

    sound, truth = night.save(tmp_path / "new" / "folder")
    info = soundfile.info(sound)
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    assert sound.name == "night.flac" and truth.name == "night.csv"
    read = soundfile.read(sound, dtype="float32")[0]
    np.testing.assert_allclose(read, night.samples, atol=1.0 / 32768)
    with truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == (
        "onset_s,offset_s,event,reason,orig_label,group,source_clip,snr_db,overlap".split(",")
    )
    assert len(rows) == len(night.events)
    spans = [(c.onset_s, c.offset_s) for c in night.cries]
    assert read_reference(truth) == pytest.approx(spans)


@pytest.mark.data
def test_columns_are_those_of_the_public_streams(night: Night, data_root) -> None:
    stream = next((data_root / "streams").glob("mixed_a.csv"))
    assert night.truth_csv().splitlines()[0] == stream.read_text().splitlines()[0]


def test_a_ten_minute_night_is_cheap() -> None:
    """At most 2 s of CPU (1.1 s measured on a laptop-class core); the best of two counts."""
    took_s = []
    for seed in (11, 12):
        began = time.process_time()
        compose_night(seed)
        took_s.append(time.process_time() - began)
    assert min(took_s) <= 2.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_night_fits_a_small_board() -> None:
    code = (
        "from crykit.synth import compose_night; compose_night(7);"
        "print(next(s for s in open('/proc/self/status') if s.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak_mb = int(done.stdout.split()[1]) / 1024
    assert 30 < peak_mb <= 180


def test_synth_needs_numpy_only() -> None:
    code = (
        "import sys, crykit.synth; bad = {'scipy', 'torch', 'onnxruntime', 'soundfile', 'soxr'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
