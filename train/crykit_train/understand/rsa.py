"""Representational similarity analysis: which sounds lie far apart in a model, and why?

N. Kriegeskorte and R. Kievit (2013), as M. Ogg (2025), section II.D, uses it: for every pair of
clips of a data set, the cosine distance of their embeddings is set beside the distance of their
acoustic descriptors (one matrix each), and beside that of other models; Spearman's rank correlation
over the pairs, corrected for the number of tests (Benjamini-Hochberg), averaged over data sets.

Pairs share clips and clips share recordings, so the textbook p-value of a rank correlation is far
too small. The p-values here come from a permutation test of whole clips (N. Mantel, Cancer Research
27, 1967) in which clips of one group move together (A. Winkler et al., "Multi-level block
permutation", NeuroImage 123, 2015): groups of equal size trade places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import false_discovery_control, rankdata

from crykit.errors import InputError

Array = NDArray[np.float64]

LEAST_CLIPS = 10
PERMUTATIONS = 999
LEVEL = 0.05


def cosine_distances(embeddings: ArrayLike) -> Array:
    """1 - cosine of every pair of embeddings (n, size), condensed: (n (n - 1) / 2,)."""
    values = np.asarray(embeddings, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(f"RSA needs finite embeddings (clips, size); got shape {values.shape}")
    return np.asarray(pdist(values, "cosine"), np.float64)


def descriptor_distances(values: ArrayLike) -> Array:
    """Euclidean distance of every pair of descriptors (n,) or (n, k), condensed; nan passes on."""
    columns = np.asarray(values, np.float64)
    return np.asarray(pdist(columns.reshape(len(columns), -1)), np.float64)


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two condensed distance matrices; nan where one is constant."""
    return float(_correlate(_standard_ranks(a)[None], _standard_ranks(b)[None])[0, 0])


def permute(groups: Sequence[str], rng: np.random.Generator) -> NDArray[np.intp]:
    """A random order (n,) of clips in which groups of equal size trade places.

    Clips of a group stay together, in random order among themselves. With one clip a group, this
    is any permutation; a group whose size no other has stays where it is.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    sizes: dict[int, list[list[int]]] = {}
    for clips in members.values():
        sizes.setdefault(len(clips), []).append(clips)
    order = np.empty(len(groups), np.intp)
    for size, blocks in sizes.items():
        for block, other in zip(blocks, rng.permutation(len(blocks)), strict=True):
            order[block] = np.asarray(blocks[other])[rng.permutation(size)]
    return order


@dataclass(frozen=True)
class Rsa:
    """One data set's correlations: of models with descriptors, and of models with models.

    ``rho`` and ``p``: (models, descriptors); ``model_rho`` and ``model_p``: (models, models).
    p-values are one-sided (larger distances go together) and not yet corrected.
    """

    name: str
    models: tuple[str, ...]
    descriptors: tuple[str, ...]
    n_clips: int
    n_groups: int
    rho: Array
    p: Array
    model_rho: Array
    model_p: Array


def analyse(
    name: str,
    embeddings: Mapping[str, ArrayLike],
    descriptors: Mapping[str, ArrayLike],
    groups: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Rsa:
    """RSA of one data set.

    Args:
        embeddings: of each model, (n, size).
        descriptors: (n,) or (n, k) each. Clips with nan (no pitch) are left out of that
            descriptor's correlations alone; with fewer than ten others it is nan.
        groups: who or what was recorded, for each clip.
        permutations: of the test; the least p-value is 1 / (permutations + 1).

    Raises:
        InputError: too few clips, or columns of other lengths.
    """
    n = len(groups)
    _check(name, n, embeddings, descriptors)
    models = {key: cosine_distances(value) for key, value in embeddings.items()}
    rng = np.random.default_rng(seed)
    shape = len(models), len(descriptors)
    rho, p = np.full(shape, np.nan), np.full(shape, np.nan)
    # Descriptors that are known of the same clips are tested together.
    by_clips: dict[bytes, list[int]] = {}
    columns = [np.asarray(v, np.float64).reshape(n, -1) for v in descriptors.values()]
    for index, column in enumerate(columns):
        by_clips.setdefault(np.isfinite(column).all(1).tobytes(), []).append(index)
    for known, indices in by_clips.items():
        keep = np.flatnonzero(np.frombuffer(known, np.bool_))
        if len(keep) < LEAST_CLIPS:
            continue
        rows = [
            squareform(squareform(d)[np.ix_(keep, keep)], checks=False) for d in models.values()
        ]
        others = [descriptor_distances(columns[i][keep]) for i in indices]
        found = mantel(
            rows, others, [groups[k] for k in keep.tolist()], permutations=permutations, rng=rng
        )
        rho[:, indices], p[:, indices] = found
    rows = list(models.values())
    model_rho, model_p = mantel(rows, rows, groups, permutations=permutations, rng=rng)
    return Rsa(
        name, tuple(models), tuple(descriptors), n, len(set(groups)), rho, p, model_rho, model_p
    )


def mantel(
    a: Sequence[Array],
    b: Sequence[Array],
    groups: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Spearman correlations of condensed distance matrices and their one-sided p-values.

    Ranks are taken once, since a permutation of clips permutes the pairs.

    Returns:
        (len(a), len(b)) both. p = (1 + permutations at least as large) / (1 + permutations).
    """
    left = np.stack([_standard_ranks(d) for d in a])
    right = np.stack([_standard_ranks(d) for d in b])
    square = np.stack([squareform(d, checks=False) for d in left])
    observed = _correlate(left, right)
    upper = np.triu_indices(len(groups), 1)
    reached = np.zeros_like(observed)
    for _ in range(permutations):
        order = permute(groups, rng)
        moved = square[:, order[upper[0]], order[upper[1]]]
        reached += _correlate(moved, right) >= observed - 1e-12
    p = (1.0 + reached) / (1.0 + permutations)
    return observed, np.where(np.isnan(observed), np.nan, p)


@dataclass(frozen=True)
class Summary:
    """Several data sets' RSA as one: means over data sets, and in how many each held.

    ``rho`` is the mean of all data sets' correlations; ``retained`` that of those alone which are
    positive and survive the correction, which is what Ogg draws (nan where none does).
    """

    models: tuple[str, ...]
    descriptors: tuple[str, ...]
    rho: Array
    retained: Array
    n_retained: NDArray[np.intp]
    n_sets: NDArray[np.intp]
    model_rho: Array
    model_n_retained: NDArray[np.intp]
    sets: list[dict[str, Any]] = field(default_factory=list)


def summarise(results: Sequence[Rsa], *, level: float = LEVEL) -> Summary:
    """Correct over all tests of all data sets at once (Benjamini-Hochberg), then average.

    Raises:
        InputError: no data set, or data sets of other models or descriptors.
    """
    if not results:
        raise InputError("RSA: no data set holds enough clips; give a larger manifest")
    first = results[0]
    if any((r.models, r.descriptors) != (first.models, first.descriptors) for r in results):
        raise InputError("RSA: every data set needs the same models and descriptors")
    rho = np.stack([r.rho for r in results])
    kept = (adjust(np.stack([r.p for r in results])) < level) & (rho > 0.0)
    model_rho = np.stack([r.model_rho for r in results])
    pairs = np.triu_indices(len(first.models), 1)
    model_p = np.stack([r.model_p for r in results])
    model_q = np.full_like(model_p, np.nan)
    model_q[:, pairs[0], pairs[1]] = adjust(model_p[:, pairs[0], pairs[1]])
    model_q = np.where(np.isnan(model_q), model_q.transpose(0, 2, 1), model_q)
    return Summary(
        models=first.models,
        descriptors=first.descriptors,
        rho=_mean(rho, np.isfinite(rho)),
        retained=_mean(rho, kept),
        n_retained=kept.sum(0),
        n_sets=np.isfinite(rho).sum(0),
        model_rho=model_rho.mean(0),
        model_n_retained=((model_q < level) & (model_rho > 0.0)).sum(0),
        sets=[{"name": r.name, "clips": r.n_clips, "groups": r.n_groups} for r in results],
    )


def adjust(p: Array) -> Array:
    """Benjamini-Hochberg adjusted p-values, over all that are known; nan stays nan."""
    known = np.isfinite(p)
    adjusted = np.full_like(p, np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(p[known])
    return adjusted


def one_of_each_group(
    groups: Sequence[str], at_most: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Indices of one random clip of each group, of ``at_most`` random groups, in order."""
    first: dict[str, int] = {}
    for index in map(int, rng.permutation(len(groups))):
        first.setdefault(groups[index], index)
    return np.sort(np.array(list(first.values())[:at_most], np.intp))


def _check(
    name: str, n: int, embeddings: Mapping[str, ArrayLike], descriptors: Mapping[str, ArrayLike]
) -> None:
    if n < LEAST_CLIPS:
        raise InputError(f"RSA of {name}: needs at least {LEAST_CLIPS} clips, got {n}")
    for key, value in (*embeddings.items(), *descriptors.items()):
        if len(np.asarray(value)) != n:
            raise InputError(f"RSA of {name}: {key} has {len(np.asarray(value))} clips, not {n}")


def _standard_ranks(distances: Array) -> Array:
    """Ranks with mean 0 and length 1; nan where all are equal or one is not known."""
    if not np.isfinite(distances).all():
        return np.full(len(distances), np.nan)
    ranks = rankdata(distances)
    ranks -= ranks.mean()
    norm = float(np.linalg.norm(ranks))
    return ranks / norm if norm > 0.0 else np.full(len(distances), np.nan)


def _correlate(a: Array, b: Array) -> Array:
    return a @ b.T


def _mean(values: Array, use: NDArray[np.bool_]) -> Array:
    """Mean over the first axis of the values to use; nan where there is none."""
    n = use.sum(0)
    total = np.where(use, values, 0.0).sum(0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
