"""Is one model better than another on the same clips? The difference, with its interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crykit.errors import InputError
from crykit_train.probe.metrics import average_precision, macro_auc, scored_classes, weighted_auc
from crykit_train.probe.outcome import Outcome

DRAWS = 1000
SECOND_TRIES = 20  # for a draw of groups that lacks a class


def paired(
    a: Outcome, b: Outcome, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Score of ``a`` minus that of ``b``, means over repeats, with a 95 % percentile interval.

    Whole groups are drawn with replacement and both models are scored on the same draw.

    Raises:
        InputError: outcomes on other clips.
    """
    if a.groups != b.groups or not np.array_equal(a.targets, b.targets):
        raise InputError(f"{a.task.name}: two models can be compared on the same clips alone")
    value = _score(a) - _score(b)
    weights = _draw(a.targets, a.groups, draws, np.random.default_rng(seed))
    spread = _weighted(a, weights) - _weighted(b, weights)
    low, high = np.quantile(spread, [0.025, 0.975])
    return value, float(low), float(high)


def _score(outcome: Outcome) -> float:
    measure = average_precision if outcome.task.metric == "average precision" else macro_auc
    return float(np.mean([measure(outcome.targets, scores) for scores in outcome.scores]))


def _draw(
    targets: NDArray[np.int64], groups: list[str], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How often each clip is in each draw of groups, (draws, clips); every class is in each."""
    names, codes = np.unique(groups, return_inverse=True)
    classes = np.unique(targets)
    rows: list[NDArray[np.float64]] = []
    for _ in range(draws):
        for _ in range(SECOND_TRIES):
            counts = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            row = counts[codes].astype(np.float64)
            if len(np.unique(targets[row > 0])) == len(classes):
                rows.append(row)
                break
    if not rows:
        raise InputError("paired: some class comes from so few groups that no draw holds it")
    return np.stack(rows)


def _weighted(outcome: Outcome, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The task's score under each row of weights, mean over repeats: (draws,)."""
    y, found = outcome.targets, []
    for scores in outcome.scores:
        if outcome.task.metric == "average precision":
            found.append(_weighted_average_precision(y == 1, scores[:, 1], weights))
        else:
            kept = scored_classes(scores.shape[1])
            found.append(np.mean([weighted_auc(y == k, scores[:, k], weights) for k in kept], 0))
    return np.mean(found, axis=0)


def _weighted_average_precision(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    from sklearn.metrics import average_precision_score

    return np.array([average_precision_score(positive, scores, sample_weight=w) for w in weights])
