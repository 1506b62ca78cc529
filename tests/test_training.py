"""Training: it learns, resumes to the same curve, keeps the last good state, measures honestly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("scipy", reason="needs the train extra")
pytest.importorskip("matplotlib", reason="needs the train extra")

from crykit.dataset import read_manifest  # noqa: E402
from crykit.errors import FaultFound, InputError, UsageError  # noqa: E402
from crykit.gate import GateSettings  # noqa: E402
from crykit.nn.student import CryStudent, StudentConfig  # noqa: E402
from crykit.synth import synthetic_cry  # noqa: E402
from crykit_train import detector  # noqa: E402
from crykit_train.compose import Placed  # noqa: E402
from crykit_train.evaluate import clip_scores, pool  # noqa: E402
from crykit_train.recipe import (  # noqa: E402
    ComposeRecipe,
    DetectorRecipe,
    TrainRecipe,
)
from crykit_train.report import evaluate_run, load_run  # noqa: E402
from crykit_train.rounds import Round, update_hardness  # noqa: E402
from crykit_train.streams import Stream, choose_gate, score_streams  # noqa: E402

pytestmark = pytest.mark.torch
RATE_HZ = 16_000

TINY = StudentConfig(
    stem_channels=8,
    blocks=((16, 2, 1, True), (16, 2, 2, False), (24, 2, 1, False)),
    embedding_size=16,
    temporal_dilations=(1, 2),
)


@pytest.fixture(scope="module")
def eight_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cries and four negatives, one of them a noise floor; all in the train split."""
    folder = tmp_path_factory.mktemp("eight")
    rng = np.random.default_rng(1)
    t = np.arange(3 * RATE_HZ) / RATE_HZ
    sounds = [("cry", synthetic_cry(3.0, seed=k)) for k in range(4)]
    sounds += [("music", 0.3 * np.sin(2 * np.pi * f * t)) for f in (220, 880)]
    sounds += [
        ("household", 0.3 * np.sign(np.sin(2 * np.pi * 3 * t)) * rng.standard_normal(len(t)))
    ]
    sounds += [("noise", 0.05 * rng.standard_normal(len(t)))]
    rows = ["path,event,group,split,source,licence,tonal_frac"]
    for k, (event, samples) in enumerate(sounds):
        soundfile.write(folder / f"{k}.flac", np.clip(samples, -1, 1), RATE_HZ)
        rows.append(f"{k}.flac,{event},g{k},train,made,CC0,0.9")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def recipe(rounds: int, **train: float) -> DetectorRecipe:
    return DetectorRecipe(
        name="tiny",
        model=TINY,
        compose=ComposeRecipe(sequence_s=4.0, cry_snr_db=(15, 30), negative_snr_db=(15, 30)),
        train=TrainRecipe(
            rounds=rounds,
            sequences_per_round=32,
            batch=8,
            warm_up_steps=4,
            average_decay=0.9,
            threads=1,
            **train,  # type: ignore[arg-type]
        ),
    )


@pytest.fixture(scope="module")
def trained(eight_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    detector.train_detector(recipe(10), eight_clips, run)
    return run


def test_overfits_eight_clips(trained: Path, eight_clips: Path) -> None:
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    model, facts = load_run(trained)
    clips = read_manifest(eight_clips)
    scores = clip_scores(model, clips)
    cries = [s for s, c in zip(scores, clips, strict=True) if c.event == "cry"]
    others = [s for s, c in zip(scores, clips, strict=True) if c.event != "cry"]
    assert min(cries) > max(others)
    assert facts["training"]["data"] == [
        {"source": "made", "licence": "CC0", "clips": 8, "groups": 8}
    ]
    for name in ("curves.png", "metrics.json", "environment.json", "recipe.json"):
        assert (trained / name).stat().st_size > 0


def test_resumes_to_the_same_weights(
    eight_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    detector.train_detector(recipe(3), eight_clips, whole)
    saved = detector._Run._save

    def save_then_die(run: detector._Run) -> None:
        saved(run)
        if run.round == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(detector._Run, "_save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        detector.train_detector(recipe(3), eight_clips, cut)
    monkeypatch.undo()
    assert not (cut / "model.safetensors").exists()
    detector.train_detector(recipe(3), eight_clips, cut, resume=True)
    one, two = load_run(whole)[0].state_dict(), load_run(cut)[0].state_dict()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_starts_from_another_run(trained: Path, eight_clips: Path, tmp_path: Path) -> None:
    detector.train_detector(recipe(1), eight_clips, tmp_path / "on", init=trained)
    rows = [json.loads(line) for line in (tmp_path / "on" / "history.jsonl").open()]
    first = json.loads((trained / "history.jsonl").open().readline())
    assert rows[0]["loss"] < first["loss"]
    assert load_run(tmp_path / "on")[1]["training"]["started_from"]["steps"] == 80
    other = DetectorRecipe(compose=ComposeRecipe(sequence_s=4.0), train=recipe(1).train)
    with pytest.raises(InputError, match="another shape"):
        detector.train_detector(other, eight_clips, tmp_path / "off", init=trained)
    with pytest.raises(InputError, match="finished run"):
        detector.train_detector(recipe(1), eight_clips, tmp_path / "no", init=tmp_path)


def test_a_loss_that_is_no_number_stops(
    eight_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = detector._Run._step

    def poisoned(run: detector._Run, *arguments: object) -> tuple[float, object]:
        if run.round == 1:
            with torch.no_grad():
                run.model.head.weight.fill_(float("nan"))
        return step(run, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(detector._Run, "_step", poisoned)
    with pytest.raises(FaultFound, match="no number at step"):
        detector.train_detector(recipe(3), eight_clips, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_a_folder_in_use_is_left_alone(trained: Path, eight_clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not empty"):
        detector.train_detector(recipe(10), eight_clips, trained)
    with pytest.raises(UsageError, match="another recipe"):
        detector.train_detector(recipe(11), eight_clips, trained, resume=True)
    with pytest.raises(InputError, match="no checkpoint"):
        detector.train_detector(recipe(1), eight_clips, tmp_path / "none", resume=True)
    with pytest.raises(InputError, match="finished"):
        load_run(tmp_path / "none")


def test_hardness_follows_the_scores() -> None:
    """A negative taken for a cry grows hard, an easy one grows easy, a missed cry grows hard."""
    target = np.zeros((1, 40), np.float32)
    target[0, 20:30] = 1
    probabilities = np.full((1, 40), 0.02, np.float32)
    probabilities[0, 0:8] = 0.9  # clip 0 is taken for a cry; clip 1 is not; clip 2 is missed
    placed = [[Placed(0, 0, 8), Placed(1, 10, 18), Placed(2, 20, 30)]]
    round_ = Round(np.zeros((1, 2, 64, 160), np.float16), target, target, placed, [3])
    hardness = np.full(4, 0.5)
    update_hardness(hardness, np.array([False, False, True, False]), round_, probabilities)
    assert hardness[0] > 0.55 and hardness[1] < 0.4 and hardness[2] > 0.6 and hardness[3] < 0.4


def test_moving_the_prior_moves_the_odds_by_the_odds() -> None:
    """By Bayes' rule: at the learnt prior's odds 3:7 moved to 1:99, odds shrink by their ratio."""
    torch.manual_seed(1)
    model = CryStudent().eval()
    features = torch.randn(1, 2, 64, 64)
    with torch.inference_mode():
        before, *_ = model(features, *model.initial_state())
        detector.move_prior(model, learnt=0.3, deployed=0.01)
        after, *_ = model(features, *model.initial_state())
    ratio = (after / (1 - after)) / (before / (1 - before))
    torch.testing.assert_close(ratio, torch.full_like(ratio, (1 / 99) / (3 / 7)), rtol=1e-3, atol=0)
    with pytest.raises(UsageError, match="priors"):
        detector.move_prior(model, learnt=0.0, deployed=0.01)


def test_pool_is_the_mean_of_the_highest() -> None:
    frames = np.arange(20, dtype=np.float32)
    assert pool(frames, 0.5) == pytest.approx(frames[10:].mean())
    assert pool(frames, 0.1) == pytest.approx(frames[12:].mean())  # at least eight


def test_gate_is_chosen_for_recall_without_alarms() -> None:
    """Cries score 0.9 for 5 s; negatives score 0.6 for 2 s: only a threshold between is right."""
    rng = np.random.default_rng(3)
    probabilities = (0.05 * rng.random(15_000)).astype(np.float32)
    reference = []
    for k in range(10):
        start = 500 + 1400 * k
        probabilities[start : start + 125] = 0.9
        reference.append((start * 0.04, (start + 125) * 0.04))
        probabilities[start + 600 : start + 650] = 0.6
    stream = Stream("made", 600.0, probabilities, reference)
    gate = choose_gate([stream])
    score = score_streams([stream], gate)
    assert gate.on_threshold > 0.55
    assert score.recall == 1.0 and score.false_alarms == 0 and score.time_f1 > 0.9
    lax = score_streams([stream], GateSettings(on_threshold=0.4, off_threshold=0.3))
    assert lax.false_alarms > 0


def test_a_run_cannot_be_scored_on_what_it_heard(trained: Path, eight_clips: Path) -> None:
    with pytest.raises(InputError, match="was trained on made"):
        evaluate_run(trained, manifest=eight_clips, leave_out="made")
