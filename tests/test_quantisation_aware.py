"""Fine-tuning for int8: an ordinary run whose weights learned with the rounding in them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("scipy", reason="needs the train extra")
pytest.importorskip("matplotlib", reason="needs the train extra")

from safetensors.torch import load_file  # noqa: E402
from tiny_model import TINY, tiny_student, write_manifest_csv  # noqa: E402

from crykit.errors import UsageError  # noqa: E402
from crykit.nn.fake_quant import RANGE_MARK, fake_quantise, ranges, set_mode  # noqa: E402
from crykit_train import checkpoint, detector  # noqa: E402
from crykit_train.models import load_run  # noqa: E402
from crykit_train.recipe import (  # noqa: E402
    ComposeRecipe,
    DetectorRecipe,
    TrainRecipe,
    read_recipe,
)

pytestmark = pytest.mark.torch
RECIPES = Path(__file__).parents[1] / "train" / "recipes"


def recipe(rounds: int, *, aware: bool = True) -> DetectorRecipe:
    return DetectorRecipe(
        name="tiny",
        model=TINY,
        compose=ComposeRecipe(sequence_s=2.0),
        train=TrainRecipe(
            rounds=rounds,
            sequences_per_round=8,
            batch=4,
            passes_per_round=1,
            warm_up_steps=1,
            average_decay=0.5,
            threads=1,
            learning_rate=1e-4,
            quantisation_aware=aware,
        ),
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest_csv(tmp_path_factory.mktemp("data"), ("train", "val"))


@pytest.fixture(scope="module")
def start(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "plain"
    detector.train_detector(recipe(1, aware=False), manifest, run)
    return run


@pytest.fixture(scope="module")
def tuned(manifest: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "aware"
    detector.train_detector(recipe(2), manifest, run, init=start)
    return run


def test_the_run_is_an_ordinary_one(tuned: Path, start: Path) -> None:
    weights, before = (load_file(run / "model.safetensors") for run in (tuned, start))
    assert list(weights) == list(before)
    assert not torch.equal(weights["stem.conv.weight"], before["stem.conv.weight"])
    student, facts = load_run(tuned)
    assert not list(ranges(student))
    assert facts["training"]["recipe"]["train"]["quantisation_aware"] is True
    metrics = json.loads((tuned / "metrics.json").read_text())
    assert {"val_clips", "val_clips_in_eight_bits"} <= set(metrics)
    assert "val_clips_in_eight_bits" not in json.loads((start / "metrics.json").read_text())


def test_its_checkpoint_keeps_the_ranges_and_starts_another_run(
    tuned: Path, manifest: Path, tmp_path: Path
) -> None:
    tensors, _ = checkpoint.load(tuned / "checkpoint.safetensors")
    seen = {k: v for k, v in tensors.items() if k.startswith("average") and RANGE_MARK in k}
    assert seen and all(v.abs() > 0 for k, v in seen.items() if k.endswith("high"))
    again = tmp_path / "again"
    detector.train_detector(recipe(1, aware=False), manifest, again, init=tuned)
    assert (again / "model.safetensors").is_file()


def test_it_resumes_to_the_same_weights(
    manifest: Path, start: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, saved = tmp_path / "cut", detector._Run._save

    def stop_after_one(self: detector._Run) -> None:
        saved(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(detector._Run, "_save", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        detector.train_detector(recipe(2), manifest, cut, init=start)
    monkeypatch.setattr(detector._Run, "_save", saved)
    detector.train_detector(recipe(2), manifest, cut, resume=True)
    whole, resumed = (load_file(run / "model.safetensors") for run in (tuned, cut))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_ranges_follow_training_alone() -> None:
    student = fake_quantise(tiny_student())
    set_mode(student, "follow")
    found = student.stem.conv.input_range
    features = torch.randn(2, 2, 64, 32)
    with torch.no_grad():
        student(features, *student.initial_state(2))
        assert found.range_high == 0, "evaluation changes nothing"
        student.train()(features, *student.initial_state(2))
        first = found.range_high.item()
        assert first == pytest.approx(features.max().item())
        student(10 * features, *student.initial_state(2))
    assert first < found.range_high.item() < 1.2 * first


@pytest.mark.parametrize("name", ["detector-quantised", "detector-quantised-small"])
def test_shipped_recipes_are_aware(name: str) -> None:
    read = read_recipe(RECIPES / f"{name}.toml")
    assert read.train.quantisation_aware
    assert msgspec.structs.asdict(read.model) == msgspec.structs.asdict(DetectorRecipe().model)


def test_the_switch_is_a_switch(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[train]\nquantisation_aware = "yes"\n')
    with pytest.raises(UsageError, match="quantisation_aware"):
        read_recipe(path)
