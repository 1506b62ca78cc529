"""Scores of probes against scikit-learn, closed forms and a slow plain bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from crykit.errors import InputError
from crykit_train.probe import metrics


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(n: int, classes: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), rng.integers(0, classes, n - classes)]
    z = np.round(4 * rng.normal(size=(n, classes))) / 4  # ties, exact in binary
    z[np.arange(n), y] += 0.75
    return y, z


@pytest.mark.parametrize("classes", [2, 5])
def test_macro_auc_is_scikit_learn_s(classes: int) -> None:
    y, z = drawn(90, classes)
    p = softmax(z)
    expected = roc_auc_score(y, p[:, 1] if classes == 2 else p, multi_class="ovr", average="macro")
    assert metrics.macro_auc(y, metrics.class_scores(z)) == pytest.approx(expected, abs=1e-9)


def test_class_scores_are_the_log_odds_and_never_saturate() -> None:
    _, z = drawn(20, 4)
    p = softmax(z)
    assert metrics.class_scores(z) == pytest.approx(np.log(p / (1 - p)))
    far = metrics.class_scores(np.array([[0.0, 900.0], [0.0, 800.0]]))
    assert far[0, 1] == 900
    assert far[1, 1] == 800


def test_average_precision_is_scikit_learn_s() -> None:
    y, z = drawn(80, 2)
    scores = metrics.class_scores(z)
    expected = average_precision_score(y == 1, scores[:, 1])
    assert metrics.average_precision(y, scores) == pytest.approx(expected, abs=1e-12)
    w = np.random.default_rng(0).integers(0, 4, (3, 80)).astype(float)
    found = metrics._weighted_average_precision(y == 1, scores[:, 1], w)
    for row, value in zip(w, found, strict=True):
        expected = average_precision_score(y == 1, scores[:, 1], sample_weight=row)
        assert value == pytest.approx(expected, abs=1e-12)


def test_weighted_auc_is_that_of_repeated_clips() -> None:
    y, z = drawn(60, 2)
    scores = metrics.class_scores(z)[:, 1]
    w = np.random.default_rng(1).integers(0, 4, (5, 60))
    found = metrics.weighted_auc(y == 1, scores, w.astype(float))
    for row, value in zip(w, found, strict=True):
        repeated = np.repeat(np.arange(60), row)
        assert value == pytest.approx(roc_auc_score(y[repeated], scores[repeated]), abs=1e-12)


def test_the_standard_error_is_the_deviation_over_the_root_of_n() -> None:
    # Deviations -1, 0, 1: variance 2 / (3 - 1) = 1; its root over the root of 3.
    assert metrics.standard_error([1.0, 2.0, 3.0]) == pytest.approx(1 / 3**0.5)
    assert np.isnan(metrics.standard_error([0.5]))


def test_the_interval_is_that_of_a_plain_bootstrap_of_groups() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    y = (np.arange(120) // 4 % 2).astype(int)  # a group is of one class
    base = y + rng.normal(size=30)[np.arange(120) // 4]  # groups differ
    scores = np.stack([np.stack([-s, s], 1) for s in (base, base + 0.3 * rng.normal(size=120))])
    low, high = metrics.bootstrap_interval("auc", y, scores, groups.tolist(), 2000, seed=1)
    plain = []
    members = {g: np.flatnonzero(groups == g) for g in np.unique(groups)}
    ours = [g for g, m in members.items() if y[m[0]] == 1]
    rest = [g for g, m in members.items() if y[m[0]] == 0]
    for _ in range(1000):
        take = np.concatenate([members[g] for of in (ours, rest) for g in rng.choice(of, len(of))])
        plain.append(np.mean([roc_auc_score(y[take], s[take, 1]) for s in scores]))
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.02)
    # Clips as if they were independent would look surer than they are.
    alone = metrics.bootstrap_interval("auc", y, scores, [str(i) for i in range(120)], 500)
    assert alone[1] - alone[0] < 0.8 * (high - low)


def test_a_difference_is_paired() -> None:
    """A model and itself with a little noise: each is unsure, their difference is not."""
    rng = np.random.default_rng(4)
    groups = [f"g{i // 3}" for i in range(90)]
    y = np.arange(90) // 3 % 2
    base = 0.5 * y + rng.normal(size=30)[np.arange(90) // 3]
    a = np.stack([-base, base], 1)[None]
    other = base + 0.05 * rng.normal(size=90)
    b = np.stack([-other, other], 1)[None].repeat(2, axis=0)
    value, low, high = metrics.difference("auc", y, a, b, groups, 400)
    assert value == pytest.approx(roc_auc_score(y, base) - roc_auc_score(y, other))
    alone = metrics.bootstrap_interval("auc", y, a, groups, 400)
    assert low <= value <= high
    assert high - low < 0.3 * (alone[1] - alone[0])
    assert metrics.difference("auc", y, a, a, groups, 50) == (0.0, 0.0, 0.0)


def test_every_draw_of_the_interval_holds_the_rarest_class() -> None:
    y = np.array([0] * 40 + [1] * 40 + [2])
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(1, 81, 3))
    low, high = metrics.bootstrap_interval("auc", y, scores, [str(i) for i in range(81)], 300)
    assert np.isfinite([low, high]).all()


def test_an_absent_class_is_refused_or_left_out() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 3))
    y = np.array([0, 0, 1, 1, 0, 1])
    with pytest.raises(InputError, match="both classes"):
        metrics.macro_auc(y, scores)
    expected = np.mean([roc_auc_score(y == k, scores[:, k]) for k in (0, 1)])
    assert metrics.macro_auc(y, scores, absent_ok=True) == pytest.approx(expected)
    with pytest.raises(InputError, match="holds one"):
        metrics.macro_auc(np.zeros(6), scores, absent_ok=True)


def test_a_summary_says_what_it_rests_on() -> None:
    y, z = drawn(40, 2)
    scores = np.stack([metrics.class_scores(z), metrics.class_scores(z + z**2 * [0.0, 0.1])])
    found = metrics.summary("auc", ("other", "cry"), y, scores, [str(i // 2) for i in range(40)])
    values = [roc_auc_score(y, s[:, 1]) for s in scores]
    assert found["value"] == pytest.approx(np.mean(values), abs=1e-4)
    assert found["standard_error"] == pytest.approx(np.std(values, ddof=1) / 2**0.5, abs=1e-4)
    assert found["groups"] == 20
    assert found["repeats"] == 2
    assert found["ci95"][0] <= found["value"] <= found["ci95"][1]
