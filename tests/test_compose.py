"""Composed training sequences, and the long streams that thresholds are chosen on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("scipy", reason="needs the train extra")
pytest.importorskip("torch", reason="needs the train extra")

from crykit.dataset import Clip, read_manifest  # noqa: E402
from crykit.errors import InputError, UsageError  # noqa: E402
from crykit.scoring import read_reference  # noqa: E402
from crykit.synth import synthetic_cry  # noqa: E402
from crykit_train.acoustics import (  # noqa: E402
    SAMPLE_RATE_HZ,
    Treatment,
    active_part,
    room_response,
    treat,
)
from crykit_train.compose import ClipBank, Composer  # noqa: E402
from crykit_train.nights import write_nights  # noqa: E402
from crykit_train.recipe import ComposeRecipe, DataRecipe, read_recipe  # noqa: E402

pytestmark = pytest.mark.torch
RECIPES = Path(__file__).parents[1] / "train" / "recipes"


def tone(hz: float, seconds: float = 2.0) -> np.ndarray:
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.sin(2 * np.pi * hz * t).astype(np.float32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic cries, tones for negatives and noise for floors, in every split."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(2)
    rows = ["path,event,group,split,orig_label,tonal_frac,rms_dbfs"]
    for split in ("train", "val"):
        for k in range(3):
            sounds = {
                "cry": synthetic_cry(3.0, seed=10 * k + len(split)),
                "music": 0.3 * tone(300.0 * (k + 1)),
                "noise": 0.05 * rng.standard_normal(3 * SAMPLE_RATE_HZ).astype(np.float32),
            }
            for event, samples in sounds.items():
                name = f"{split}_{event}_{k}.flac"
                soundfile.write(folder / name, samples, SAMPLE_RATE_HZ)
                rows.append(f"{name},{event},{split}-{event}-{k},{split},{event},0.9,-20")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def train_clips(manifest: Path) -> list[Clip]:
    return [c for c in read_manifest(manifest) if c.split == "train"]


@pytest.fixture(scope="module")
def composer(manifest: Path) -> Composer:
    bank = ClipBank.load(train_clips(manifest), DataRecipe())
    return Composer(bank, ComposeRecipe(sequence_s=8.0), DataRecipe(), seed=3)


def test_same_seed_same_sequence(composer: Composer) -> None:
    sampling = composer.sampling(np.full(9, 0.5))
    first, again, other = (composer.sequence(0, i, sampling) for i in (5, 5, 6))
    assert np.array_equal(first.samples, again.samples)
    assert np.array_equal(first.target, again.target)
    assert not np.array_equal(first.samples, other.samples)


def test_sequences_are_sound(composer: Composer) -> None:
    sampling = composer.sampling(np.full(9, 0.5))
    made = [composer.sequence(1, i, sampling) for i in range(60)]
    for one in made:
        assert one.samples.dtype == np.float32 and len(one.samples) == 8 * SAMPLE_RATE_HZ
        assert np.isfinite(one.samples).all() and np.abs(one.samples).max() <= 1.0
        assert one.target.shape == one.weight.shape == (200,)
        cry_frames = np.zeros(200, bool)
        for p in one.placed:
            if composer.bank.clips[p.clip].event == "cry":
                cry_frames[p.start_frame : p.end_frame] = True
        assert not one.target[~cry_frames].any()  # a cry is marked only where one was placed
    share = np.mean([one.target.any() for one in made])
    assert 0.3 < share < 0.7
    levels = [20 * np.log10(np.sqrt(np.mean(o.samples**2)) + 1e-9) for o in made]
    assert min(levels) < -50 and max(levels) > -25


def test_marked_frames_are_louder_than_the_floor(composer: Composer) -> None:
    """With cries alone well over the floor, energy and target must rise together."""
    recipe = ComposeRecipe(
        negatives_mean=0.0,
        cry_share=1.0,
        whole_clip_share=0.0,
        cry_snr_db=(25.0, 30.0),
        reverb_share=0.0,
        floor_dbfs=(-50.0, -45.0),
    )
    loud = Composer(composer.bank, recipe, DataRecipe(), seed=4)
    sampling = loud.sampling(np.full(9, 0.5))
    for i in range(10):
        one = loud.sequence(0, i, sampling)
        if not 20 < one.target.sum() < 180:
            continue
        power = np.square(one.samples.reshape(200, -1)).mean(1)
        assert power[one.target > 0].mean() > 10 * power[one.target == 0].mean()


def test_hard_clips_are_drawn_more_often(composer: Composer) -> None:
    hardness = np.full(9, 0.1)
    hard = composer.negatives[0]
    hardness[hard] = 0.9
    before = composer.sampling(np.full(9, 0.1))["negatives"][0]
    after = composer.sampling(hardness)["negatives"][0]
    assert after > 2 * before


def test_a_bank_without_cries_is_refused(manifest: Path) -> None:
    clips = [c for c in train_clips(manifest) if c.event != "cry"]
    with pytest.raises(InputError, match="no usable cry"):
        ClipBank.load(clips, DataRecipe())


def test_low_pass_and_speed() -> None:
    low = treat(tone(5000), Treatment(low_pass_hz=3800))
    assert np.sqrt(np.mean(low**2)) < 0.05
    kept = treat(tone(1000), Treatment(low_pass_hz=3800))
    assert np.sqrt(np.mean(kept[1000:-1000] ** 2)) == pytest.approx(np.sqrt(0.5), rel=0.02)
    fast = treat(tone(1000), Treatment(speed=1.25))
    spectrum = np.abs(np.fft.rfft(fast))
    peak_hz = spectrum.argmax() * SAMPLE_RATE_HZ / len(fast)
    assert peak_hz == pytest.approx(1250, rel=0.02)
    assert len(fast) == pytest.approx(2 * SAMPLE_RATE_HZ / 1.25, rel=0.02)


def test_a_room_rings_on() -> None:
    room = room_response(np.random.default_rng(1))
    wet = treat(tone(500, 0.5), Treatment(room=room))
    assert len(wet) == 8000 + len(room) - 1
    assert np.abs(wet[8000:8400]).max() > 0


def test_nothing_sounds_in_silence() -> None:
    assert active_part(np.zeros(16000, np.float32)) is None
    assert active_part(np.zeros(10, np.float32)) is None


def test_streams_tell_the_truth(manifest: Path, tmp_path: Path) -> None:
    clips = [c for c in read_manifest(manifest) if c.split == "val"]
    write_nights(clips, tmp_path, hours=1 / 6, seed=5)
    (audio,) = tmp_path.glob("*.flac")
    samples, rate = soundfile.read(audio)
    assert rate == SAMPLE_RATE_HZ and len(samples) == 600 * rate
    spans = read_reference(audio.with_suffix(".csv"), merge_gap_s=0.0)
    assert len(spans) >= 8
    floor = np.median(np.square(samples.reshape(-1, 1600)).mean(1))
    louder = [np.square(samples[int(a * rate) : int(b * rate)]).mean() > floor for a, b in spans]
    assert np.mean(louder) > 0.9
    with pytest.raises(InputError, match="needs clips of cry"):
        write_nights([c for c in clips if c.event == "cry"], tmp_path, hours=0.1, seed=1)


def test_shipped_recipes_of_the_student_are_valid() -> None:
    recipes = [*RECIPES.glob("detector*.toml"), *RECIPES.glob("distill*.toml")]
    assert {p.stem for p in recipes} >= {"detector", "detector-small", "distill", "distill-small"}
    for path in recipes:
        read_recipe(path)


def test_recipes_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[train]\nepochs = 3\n")
    with pytest.raises(UsageError, match="epochs"):
        read_recipe(path)
    path.write_text("[train]\n")
    assert read_recipe(path, ("train.rounds=2", 'data.exclude_sources=["x"]')).train.rounds == 2
    with pytest.raises(UsageError, match=r"section\.key=value"):
        read_recipe(path, ("train.rounds",))
    path.write_text("[train\n")
    with pytest.raises(InputError, match="TOML"):
        read_recipe(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "absent.toml")
