"""Scores of a probe: macro one-versus-rest AUC, its spread over repeats and over groups.

Two uncertainties, told apart: the standard error over repeats says how much the seed matters, the
interval over resampled groups how much the babies and recordings do that happened to be measured.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crykit.errors import InputError
from crykit.scoring import auc
from crykit_train.probe.tasks import Metric

DRAWS_AT_ONCE = 250  # keeps a block of the bootstrap within some tens of megabytes


def class_scores(logits: ArrayLike) -> NDArray[np.float64]:
    """One-versus-rest log-odds of each class, from logits (n, classes).

    ``z_k`` minus the log-sum-exp of the others: orders clips as softmax does, but never saturates.
    """
    z = np.asarray(logits, np.float64)
    out = np.empty_like(z)
    for k in range(z.shape[1]):
        others = np.delete(z, k, axis=1)
        top = others.max(axis=1, keepdims=True)
        out[:, k] = z[:, k] - (top[:, 0] + np.log(np.exp(others - top).sum(axis=1)))
    return out


def scored_classes(n_classes: int) -> range:
    """Classes that a macro mean is over: of two, the positive one says it all."""
    return range(1, 2) if n_classes == 2 else range(n_classes)


def macro_auc(targets: ArrayLike, scores: NDArray[np.float64], *, absent_ok: bool = False) -> float:
    """Mean over classes of the AUC of one against the rest.

    Args:
        targets: index of each clip's class, (n,).
        scores: higher means more of that class, (n, classes).
        absent_ok: leave out classes that are absent (or alone), for a small validation fold.

    Raises:
        InputError: a class is absent, or nothing but one is there.
    """
    y = np.asarray(targets)
    values: list[float] = []
    for k in scored_classes(scores.shape[1]):
        mine = y == k
        if absent_ok and (mine.all() or not mine.any()):
            continue
        values.append(auc(mine, scores[:, k]))
    if not values:
        raise InputError("AUC needs two classes in the fold; it holds one")
    return float(np.mean(values))


def average_precision(targets: ArrayLike, scores: NDArray[np.float64]) -> float:
    """Average precision of the positive class of two."""
    return _weighted_average_precision(
        np.asarray(targets) == 1, scores[:, 1], np.ones((1, len(scores)))
    )[0]


def score(metric: Metric, targets: ArrayLike, scores: NDArray[np.float64]) -> float:
    """The task's metric."""
    if metric == "average precision":
        return float(average_precision(targets, scores))
    return macro_auc(targets, scores)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean: the sample's standard deviation (n - 1) over the root of n; NaN of one value."""
    n = len(values)
    return float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan


def bootstrap_interval(
    metric: Metric,
    targets: ArrayLike,
    scores: NDArray[np.float64],
    groups: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval, over resampled groups, of the mean score of the repeats.

    Args:
        scores: (repeats, n, classes).
    """
    every = _bootstrap_values(metric, targets, scores, groups, draws, seed)
    low, high = np.quantile(every[np.isfinite(every)], [0.025, 0.975])
    return float(low), float(high)


def difference(
    metric: Metric,
    targets: ArrayLike,
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    groups: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean score of one model less that of another on the same clips, with its 95 % interval.

    Both are scored on the same draws of groups, so what is hard for both cancels.

    Args:
        ours, theirs: (repeats, n, classes), each its own number of repeats.
    """
    a, b = (_bootstrap_values(metric, targets, s, groups, draws, seed) for s in (ours, theirs))
    value = np.mean([score(metric, targets, s) for s in ours]) - np.mean(
        [score(metric, targets, s) for s in theirs]
    )
    both = (a - b)[np.isfinite(a - b)]
    low, high = np.quantile(both, [0.025, 0.975])
    return float(value), float(low), float(high)


def _bootstrap_values(
    metric: Metric,
    targets: ArrayLike,
    scores: NDArray[np.float64],
    groups: Sequence[str],
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    """The mean score of the repeats in every draw of groups, (draws,).

    Groups are drawn within strata, each with the rarest class that it holds, so that no draw lacks
    a class. A draw's score is computed with weights: how often each clip's group was drawn.
    """
    y = np.asarray(targets)
    codes, strata = _strata(y, groups)
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    for start in range(0, draws, DRAWS_AT_ONCE):
        counts = np.zeros((min(DRAWS_AT_ONCE, draws - start), codes.max() + 1))
        for members in strata:
            picked = rng.integers(0, len(members), (len(counts), len(members)))
            for row, drawn in zip(counts, members[picked], strict=True):
                np.add.at(row, drawn, 1.0)
        weights = counts[:, codes]
        found.append(np.mean([_weighted(metric, y, s, weights) for s in scores], axis=0))
    return np.concatenate(found)


def _strata(
    targets: NDArray[Any], groups: Sequence[str]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Group number of each clip, and the groups of each stratum."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    holders = {k: set(codes[targets == k].tolist()) for k in np.unique(targets).tolist()}
    by_rarity = sorted(holders, key=lambda k: (len(holders[k]), k))
    strata: dict[int, list[int]] = defaultdict(list)
    for group in range(len(names)):
        strata[next(k for k in by_rarity if group in holders[k])].append(group)
    return codes, [np.array(members, np.int64) for members in strata.values()]


def _weighted(
    metric: Metric,
    targets: NDArray[Any],
    scores: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    if metric == "average precision":
        return _weighted_average_precision(targets == 1, scores[:, 1], weights)
    classes = scored_classes(scores.shape[1])
    return np.mean([weighted_auc(targets == k, scores[:, k], weights) for k in classes], axis=0)


def weighted_auc(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUC under every row of weights, (draws,): Mann-Whitney with multiplicities, ties half.

    Args:
        weights: (draws, n).
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    w = weights[:, order]
    ours = np.add.reduceat(w * positive[order], starts, axis=1)
    theirs = np.add.reduceat(w * ~positive[order], starts, axis=1)
    below = np.cumsum(theirs, axis=1) - 0.5 * theirs
    with np.errstate(invalid="ignore"):  # a draw without one of the two: NaN, left out
        return (ours * below).sum(axis=1) / (ours.sum(axis=1) * theirs.sum(axis=1))


def _weighted_average_precision(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum over thresholds of the step in recall times the precision there, (draws,)."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) < 0])
    w = weights[:, order]
    ours = np.add.reduceat(w * positive[order], starts, axis=1)
    every = np.cumsum(np.add.reduceat(w, starts, axis=1), axis=1)
    precision = np.cumsum(ours, axis=1) / np.maximum(every, 1e-12)
    return (ours * precision).sum(axis=1) / ours.sum(axis=1)


def summary(
    metric: Metric,
    classes: Sequence[str],
    targets: NDArray[np.int64],
    scores: NDArray[np.float64],
    groups: Sequence[str],
    draws: int = 1000,
) -> dict[str, Any]:
    """What a table's cell rests on.

    Args:
        scores: (repeats, n, classes).
    """
    values = [score(metric, targets, s) for s in scores]
    low, high = bootstrap_interval(metric, targets, scores, groups, draws)
    error = standard_error(values)
    holders = {
        name: len({g for g, t in zip(groups, targets, strict=True) if t == k})
        for k, name in enumerate(classes)
    }
    return {
        "metric": metric,
        "value": round(float(np.mean(values)), 4),
        "standard_error": None if math.isnan(error) else round(error, 4),
        "repeats": len(values),
        "ci95": [round(low, 4), round(high, 4)],
        "groups": len(set(groups)),
        "clips": len(targets),
        "class_groups": holders,
    }
