"""Probes: what learns under each protocol, sampling, learning rates, the best epoch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from crykit.dataset import Clip  # noqa: E402
from crykit.errors import FaultFound  # noqa: E402
from crykit.nn.pretrained import random_pretrained  # noqa: E402
from crykit_train.probe.recipes import ProtocolRecipe  # noqa: E402
from crykit_train.probe.schedule import HalvingSchedule  # noqa: E402
from crykit_train.probe.sources import Body  # noqa: E402
from crykit_train.probe.tasks import Task  # noqa: E402
from crykit_train.probe.training import (  # noqa: E402
    Embedded,
    Probe,
    fit,
    predict,
    sampling_weights,
    validate,
)
from crykit_train.probe.transfer import TransferPlan, class_weights, transfer_probe  # noqa: E402

pytestmark = pytest.mark.torch


def task_of(labels: list[str], folds: list[str]) -> Task:
    clips = [
        Clip(Path(str(i)), label, f"g{i}", fold, "s", "cc0", label, "", {})
        for i, (label, fold) in enumerate(zip(labels, folds, strict=True))
    ]
    return Task("toy", clips, labels, tuple(sorted(set(labels))), np.array(folds))


def toy(n: int = 40, rare: int = 8) -> tuple[Task, torch.Tensor]:
    """Two classes that one direction tells apart; the second is rare."""
    rng = np.random.default_rng(0)
    labels, folds, rows = [], [], []
    for fold in ("train", "val", "test"):
        y = np.r_[np.zeros(n - rare), np.ones(rare)].astype(int)
        labels += ["b" if t else "a" for t in y]
        folds += [fold] * n
        x = rng.normal(size=(n, 6))
        x[:, 2] = 5 * x[:, 2] + 20 * y + 100
        rows.append(x)
    return task_of(labels, folds), torch.tensor(np.concatenate(rows), dtype=torch.float32)


class Windows:
    """Log-mels in memory, all of one length."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def windows(self, picked, rng):
        return self.values[torch.from_numpy(picked)]

    def whole(self, picked):
        for at in range(0, len(picked), 16):
            yield (
                np.arange(at, min(at + 16, len(picked))),
                self.values[torch.from_numpy(picked[at : at + 16])],
            )


def encoded(protocol: str, epochs: int = 2, encoder_rate: float = 1e-2):
    """A tiny encoder trained by a protocol: its state before and after, and the probe."""
    torch.manual_seed(0)
    body = Body(random_pretrained("audiontt2020", channels=4, size=8))
    before = copy.deepcopy(body.state_dict())
    task, _ = toy()
    rng = np.random.default_rng(1)
    log_mel = torch.tensor(rng.normal(-6, 3, (120, 1, 64, 24)), dtype=torch.float32)
    log_mel[torch.from_numpy(task.targets) == 1, :, :20] += 5
    embeddings = body(log_mel).detach()
    body.load_state_dict(before)
    probe = Probe(body, embeddings[:40], 2)
    recipe = ProtocolRecipe(protocol=protocol, epochs=epochs, batch=16, warm_up_epochs=1)
    found = fit(
        probe,
        Windows(log_mel),
        task,
        recipe,
        learning_rate=1e-2,
        encoder_learning_rate=encoder_rate,
        seed=1,
    )
    return before, found.probe.body.state_dict(), found, body


def test_the_frozen_encoder_is_bit_identical_after_linear() -> None:
    before, after, found, body = encoded("linear")
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(m.training for m in body.modules())
    assert found.validation_score > 0.9  # and yet the layer learnt


def test_only_batch_norm_statistics_change_under_linear_bn() -> None:
    before, after, _, body = encoded("linear+bn")
    statistics = {k for k in before if "running_" in k or "num_batches" in k}
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert statistics
    assert changed == statistics
    assert all(p.grad is None for p in body.parameters())


def test_batch_norm_statistics_become_those_of_the_data() -> None:
    """Hand: momentum 0.1 from 0 towards the batch mean m gives m (1 - 0.9 ** steps)."""
    norm = nn.BatchNorm1d(3)
    x = torch.arange(24.0).reshape(8, 3)
    task = task_of(["a", "b"] * 4 + ["a", "b"] * 2, ["train"] * 8 + ["val"] * 4)

    class All:
        def windows(self, picked, rng):
            return x

        def whole(self, picked):
            yield np.arange(len(picked)), x[: len(picked)]

    probe = Probe(norm, torch.randn(8, 3), 2)
    recipe = ProtocolRecipe(protocol="linear+bn", epochs=1, batch=8)
    fit(probe, All(), task, recipe, learning_rate=0.0, seed=0)
    assert norm.running_mean.tolist() == pytest.approx((0.1 * x.mean(0)).tolist(), rel=1e-5)


def test_a_band_limit_makes_what_lies_above_it_unheard() -> None:
    from crykit_train.probe.sources import bands_below

    torch.manual_seed(0)
    p = random_pretrained("audiontt2020", channels=4, size=8)
    assert bands_below(64, 7800) == 64
    kept = bands_below(64, 3800)
    x = torch.randn(2, 1, 64, 40)
    other = x.clone()
    other[:, :, kept:] -= 12.0  # what a narrow-band recording has there
    body = Body(p, below_hz=3800).eval()
    with torch.inference_mode():
        assert torch.equal(body(x), body(other))
        other[:, :, kept - 1] += 1.0
        assert not torch.equal(body(x), body(other))
        assert not torch.equal(Body(p)(x), body(x))


def test_everything_learns_end_to_end() -> None:
    before, after, found, _ = encoded("end-to-end", epochs=3)
    if found.epoch == 1:
        pytest.fail("the best epoch is the first, in which the encoder's rate is near zero")
    weights = [k for k in before if k.endswith("weight")]
    assert all(not torch.equal(before[k], after[k]) for k in weights)


def test_an_encoder_rate_of_zero_leaves_the_weights() -> None:
    before, after, _, _ = encoded("end-to-end", encoder_rate=0.0)
    weights = [k for k in before if k.endswith(("weight", "bias"))]
    assert all(torch.equal(before[k], after[k]) for k in weights)


def test_weighted_sampling_balances_the_classes() -> None:
    targets = np.array([0] * 90 + [1] * 9 + [2])
    w = sampling_weights(targets, 3)
    assert [w[targets == k].sum() for k in range(3)] == pytest.approx([1, 1, 1])
    seen: list[int] = []
    task, x = toy(40, rare=4)

    class Watched(Embedded):
        def windows(self, picked, rng):
            seen.extend(task.targets[picked])
            return super().windows(picked, rng)

    recipe = ProtocolRecipe(epochs=20, batch=16)
    fit(Probe(None, x[:40], 2), Watched(x), task, recipe, learning_rate=1e-3)
    assert len(seen) == 800
    assert np.mean(seen) == pytest.approx(0.5, abs=0.06)  # one in ten are of the class


def test_the_rate_is_halved_after_three_epochs_without_progress() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([{"params": [parameter], "lr": 0.8}])
    schedule = HalvingSchedule(optimiser, patience=3)
    rates = []
    # Best is 1.0, then 0.9; equal is no progress; the count begins anew after a halving.
    for loss in [1.0, 1.1, 1.1, 0.9, 0.9, 0.95, 1.0, 2.0, 2.0, 2.0, 0.5]:
        schedule.before_step(0)
        rates.append(optimiser.param_groups[0]["lr"])
        schedule.after_epoch(loss)
    schedule.before_step(0)
    rates.append(optimiser.param_groups[0]["lr"])
    assert rates == [0.8] * 7 + [0.4] * 3 + [0.2] * 2


def test_the_encoder_s_rate_rises_from_zero_over_ten_epochs() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [a], "lr": 1e-2}, {"params": [b], "lr": 1e-3, "warm_up": True}]
    optimiser = torch.optim.Adam(groups)
    schedule = HalvingSchedule(optimiser, patience=3, warm_up_epochs=10)
    found = []
    for done in (0, 2.5, 5, 10, 30):
        schedule.before_step(done)
        found.append(tuple(g["lr"] for g in optimiser.param_groups))
    assert [encoder for _, encoder in found] == pytest.approx([0, 2.5e-4, 5e-4, 1e-3, 1e-3])
    assert {head for head, _ in found} == {1e-2}
    for _ in range(4):
        schedule.after_epoch(1.0)
    schedule.before_step(5)
    assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([5e-3, 2.5e-4])


def test_the_best_validation_epoch_is_kept() -> None:
    task, x = toy()
    probe = Probe(None, x[:40], 2)
    recipe = ProtocolRecipe(epochs=12, batch=16)
    found = fit(probe, Embedded(x), task, recipe, learning_rate=0.05, seed=3)
    best = max(found.history, key=lambda r: (round(r["val_score"], 6), -r["val_loss"]))
    assert found.epoch == best["epoch"]
    score, loss = validate(probe, Embedded(x), task, task.indices("val"), torch.device("cpu"))
    assert (score, loss) == (found.validation_score, found.validation_loss)


def test_the_validation_loss_weighs_classes_alike() -> None:
    task, x = toy(20, rare=2)
    probe = Probe(None, x[:20], 2)
    val = task.indices("val")
    _, loss = validate(probe, Embedded(x), task, val, torch.device("cpu"))
    log_p = np.log(np.exp(predict(probe, Embedded(x), val)))
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    y = task.targets[val]
    by_class = [-log_p[y == k, k].mean() for k in (0, 1)]
    assert loss == pytest.approx(np.mean(by_class), rel=1e-5)


def test_the_same_seed_gives_the_same_curve() -> None:
    one, two = encoded("end-to-end")[2], encoded("end-to-end")[2]
    assert one.history == two.history


def test_features_are_centred_once_and_a_dead_unit_stays_zero() -> None:
    x = torch.randn(50, 4) * 3 + 7
    x[:, 1] = 2.0
    probe = Probe(None, x, 2)
    z = (x - probe.centre) / probe.scale
    assert z.mean(0).abs().max() < 1e-5
    assert z.std(0)[[0, 2, 3]].tolist() == pytest.approx([1, 1, 1], rel=1e-5)
    assert z[:, 1].abs().max() == 0


def test_a_loss_that_is_no_number_stops_and_says_where() -> None:
    task, x = toy()
    x = x.clone()
    probe = Probe(None, x[:40], 2)
    x[:40] = float("nan")
    with pytest.raises(FaultFound, match=r"no number at epoch 1, step 1 \(learning rates 0.01"):
        fit(probe, Embedded(x), task, ProtocolRecipe(epochs=2, batch=400), learning_rate=0.01)


# --- Ogg's protocol --------------------------------------------------------------------------


def test_class_weights_are_scikit_learn_s() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = np.array([0] * 5 + [1] * 2 + [2] * 13)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert class_weights(y, 3).tolist() == pytest.approx(expected.tolist())


def test_transfer_keeps_the_layer_of_the_lowest_validation_loss(monkeypatch) -> None:
    task, x = toy()
    x = (x - x.mean(0)) / x.std(0)
    layer = transfer_probe(x, task, TransferPlan(epochs=50, learning_rate=1e-2), seed=0)
    test = task.indices("test")
    answers = layer(x[torch.from_numpy(test)]).argmax(1).numpy()
    assert (answers == task.targets[test]).mean() > 0.9
    # A rate so high that it only gets worse: the start, which nothing beats, is kept... or epoch 1.
    losses: list[float] = []
    real = torch.optim.lr_scheduler.ReduceLROnPlateau.step
    monkeypatch.setattr(
        torch.optim.lr_scheduler.ReduceLROnPlateau,
        "step",
        lambda self, value: (losses.append(value), real(self, value))[0],
    )
    plan = TransferPlan(epochs=12, learning_rate=3.0)
    layer = transfer_probe(x, task, plan, seed=0)
    val = torch.from_numpy(task.indices("val"))
    weights = class_weights(task.targets[task.indices("train")], 2)
    with torch.inference_mode():
        kept = nn.functional.cross_entropy(
            layer(x[val]), torch.from_numpy(task.targets)[val], weights
        )
    assert float(kept) == pytest.approx(min(losses), rel=1e-6)


def test_transfer_lowers_the_rate_after_five_epochs_without_progress(monkeypatch) -> None:
    task, x = toy()
    x = x * 0  # nothing to learn but the bias; at rate 0 nothing moves: no progress at all
    rates: list[float] = []
    real = torch.optim.Adam.step

    def watched(self, *a, **k):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *a, **k)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    monkeypatch.setattr(
        nn.functional, "cross_entropy", lambda z, y, w: z.sum() * 0.0 + 1.0
    )  # a flat loss
    transfer_probe(x, task, TransferPlan(epochs=8, learning_rate=1e-4, batch=64), seed=0)
    # The first epoch sets the best; the five after it bring none.
    assert rates == pytest.approx([1e-4] * 6 + [1e-5] * 2)
