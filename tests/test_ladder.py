"""The leakage ladder: memory pays on its leaky rungs and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("sklearn", reason="needs the train extra")
pytest.importorskip("matplotlib", reason="needs the train extra")

from crykit.errors import InputError  # noqa: E402
from crykit_train.understand.ladder import (  # noqa: E402
    RUNGS,
    LadderRecipe,
    Pool,
    augment,
    clip_features,
    held_out_scores,
    rows_of,
    run_ladder,
    shuffle_over_babies,
)

pytestmark = pytest.mark.torch
RATE_HZ = 16_000
RUNG = {rung.name: rung for rung in RUNGS}
SMALL = LadderRecipe(folds=4, repeats=2, copies=2, balance_copies=2, trees=20, bootstrap=40)
NEAREST = msgspec.structs.replace(SMALL, model="neighbour")


def pool_of(n_babies: int, takes: int, copies: int) -> tuple[Pool, np.ndarray]:
    """Babies that are told apart at once, takes and copies that differ little; their babies."""
    rng = np.random.default_rng(0)
    voice = rng.standard_normal((n_babies, 6))
    features, origin, is_copy, babies = [], [], [], []
    for clip in range(n_babies * takes):
        babies.append(clip // takes)
        take = voice[clip // takes] + 0.1 * rng.standard_normal(6)
        for copy in range(copies + 1):
            features.append(take + 0.01 * copy)
            origin.append(clip)
            is_copy.append(copy > 0)
    return Pool(np.stack(features), np.array(origin), np.array(is_copy)), np.array(babies)


def test_memory_pays_where_a_rung_leaks_and_nowhere_else() -> None:
    pool, babies = pool_of(40, 4, 2)
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1], 20))[babies]  # by chance

    def accuracy(name: str) -> float:
        rows, scores = held_out_scores(RUNG[name], pool, labels, babies, SMALL, seed=0)
        return float((scores.argmax(axis=1) == labels[pool.origin[rows]]).mean())

    assert accuracy("clip_wise") > 0.9 and accuracy("augmented_before") > 0.95
    assert accuracy("baby_disjoint") < 0.7 and accuracy("augmented_after") < 0.7


def test_every_row_is_held_out_once_and_only_its_own_rows() -> None:
    pool, babies = pool_of(12, 3, 2)
    labels = np.array([0, 1, 2])[np.arange(12) % 3][babies]
    clips = np.flatnonzero(~pool.is_copy)
    for rung in RUNGS:
        rows, scores = held_out_scores(rung, pool, labels, babies, SMALL, seed=0)
        assert np.allclose(scores.sum(axis=1), 1) and len(set(rows)) == len(rows)
        before = rung.copies in ("before", "balance")
        assert before or np.array_equal(rows, clips)
    assert len(rows_of(RUNG["augmented_before"], pool, labels, 1)) == 2 * len(clips)


def test_balancing_fills_up_rare_classes() -> None:
    pool, babies = pool_of(12, 3, 3)
    labels = (babies >= 10).astype(int)  # 30 clips against 6
    rows = rows_of(RUNG["balanced_before"], pool, labels, 1)
    counts = np.bincount(labels[pool.origin[rows]])
    assert counts.tolist() == [30, 24]  # all 3 copies of each of 6, and no more
    assert np.isin(np.flatnonzero(~pool.is_copy), rows).all()
    # Copies are taken evenly: no clip has its second before all have their first.
    part = rows_of(RUNG["balanced_before"], pool, (babies >= 9).astype(int), 1)
    per_clip = np.bincount(pool.origin[part], minlength=36)[27:]
    assert per_clip.sum() == 27 and set(per_clip) == {3}


def test_dealt_out_labels_keep_babies_whole_and_their_shares() -> None:
    babies = np.repeat(np.arange(30), 3)
    targets = np.where(babies < 24, 0, 1)
    first, second = shuffle_over_babies(targets, babies, 2, seed=1)
    assert not np.array_equal(first, second)
    for labels in (first, second):
        assert all(len(set(labels[babies == b])) == 1 for b in range(30))
        assert (labels == 1).sum() == 18


def test_copies_differ_and_features_are_finite() -> None:
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(RATE_HZ)).astype(np.float32)
    copy = augment(sound, rng)
    assert 0.9 * RATE_HZ < len(copy) < 1.12 * RATE_HZ and np.abs(copy).max() <= 1
    assert clip_features(sound).shape == (192,) and np.isfinite(clip_features(copy)).all()
    assert np.isfinite(clip_features(np.zeros(10, np.float32))).all()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve babies of one pitch each, three cries a baby; the reason has nothing to do with it."""
    rng = np.random.default_rng(3)
    rows = ["path,event,group,split,source,reason"]
    for baby in range(12):
        for take in range(3):
            t = np.arange(RATE_HZ // 2) / RATE_HZ
            sound = 0.2 * np.sin(2 * np.pi * (300 + 40 * baby) * t)
            sound += 0.01 * rng.standard_normal(len(t))
            name = f"{baby}_{take}.flac"
            soundfile.write(tmp_path / name, sound, RATE_HZ)
            reason = ("hungry", "tired")[baby * 7 % 12 % 2]
            rows.append(f"{name},cry,baby{baby},train,donateacry,{reason}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "manifest.csv"


def test_the_whole_ladder(manifest: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = run_ladder(
        NEAREST, manifest, tmp_path / "out", progress=lambda a, b, _: steps.append((a, b))
    )
    assert steps[-1][0] == steps[-1][1]
    assert json.loads((tmp_path / "out" / "ladder.json").read_text()) == found
    assert (tmp_path / "out" / "ladder.png").stat().st_size > 5000
    assert found["leaky"] and found["babies"] == 12 and found["clips"] == 36
    rows = {(row["rung"], row["labels"]): row for row in found["rungs"]}
    assert len(rows) == 2 * len(RUNGS)
    for (rung, _), row in rows.items():
        assert row["leaky"] is RUNG[rung].leaky
        low, high = row["accuracy"]["interval_over_babies"]
        assert low <= row["accuracy"]["mean"] <= high
    memory = rows["augmented_before", "dealt out by chance"]["accuracy"]["mean"]
    assert memory > rows["baby_disjoint", "dealt out by chance"]["accuracy"]["mean"] + 0.2
    again = run_ladder(NEAREST, manifest, tmp_path / "again")
    assert again["rungs"] == found["rungs"]


def test_a_reason_of_too_few_babies_is_named(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text().replace(
        "baby0,train,donateacry,hungry", "baby0,train,donateacry,ill"
    )
    manifest.write_text(text)
    with pytest.raises(InputError, match="ill has 1 babies for 4 folds"):
        run_ladder(SMALL, manifest, tmp_path / "out")
    manifest.write_text(text.replace("donateacry", "other"))
    with pytest.raises(InputError, match="0 reasons"):
        run_ladder(SMALL, manifest, tmp_path / "out")
