"""RSA: correlations against scipy, p-values against enumeration and under the null."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from crykit.errors import InputError
from crykit_train.understand.rsa import (
    adjust,
    analyse,
    cosine_distances,
    descriptor_distances,
    mantel,
    one_of_each_group,
    permute,
    spearman,
    summarise,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def singles(n: int) -> list[str]:
    return [str(i) for i in range(n)]


# --- distances --------------------------------------------------------------------------------


def test_cosine_distances_are_those_of_every_pair_once(rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 4))
    slow = [
        1 - x[i] @ x[j] / np.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))
        for i, j in itertools.combinations(range(6), 2)
    ]
    np.testing.assert_allclose(cosine_distances(x), slow, atol=1e-12)


def test_descriptor_distances_are_absolute_differences_or_euclidean() -> None:
    np.testing.assert_allclose(descriptor_distances([1.0, 4.0, -1.0]), [3.0, 2.0, 5.0])
    np.testing.assert_allclose(descriptor_distances([[0, 0], [3, 4.0]]), [5.0])


def test_spearman_is_scipys_with_ties_too(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal(66), rng.integers(0, 5, 66).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert np.isnan(spearman(a, np.ones(66)))


# --- the permutation test ---------------------------------------------------------------------


def test_permutations_keep_groups_together(rng: np.random.Generator) -> None:
    groups = ["a", "b", "a", "c", "b", "d", "e", "e", "e"]
    for _ in range(50):
        moved = [groups[i] for i in permute(groups, rng)]
        assert sorted(moved) == sorted(groups)
        # Places of a and b hold one whole pair each; the only triple stays; c and d trade.
        assert moved[0] == moved[2] and moved[1] == moved[4]
        assert moved[6:] == ["e", "e", "e"]
        assert {moved[3], moved[5]} == {"c", "d"}


def test_every_order_of_single_clips_is_reached(rng: np.random.Generator) -> None:
    seen = {tuple(permute(singles(3), rng)) for _ in range(200)}
    assert seen == set(itertools.permutations(range(3)))


def test_p_is_what_all_permutations_give(rng: np.random.Generator) -> None:
    """Five clips have 120 orders: their exact p-value against the sampled one."""
    a, b = rng.random(10), rng.random(10)
    b += 0.8 * a
    square = squareform(a)
    observed = spearmanr(a, b).statistic
    every = [
        spearmanr(squareform(square[np.ix_(o, o)]), b).statistic >= observed - 1e-12
        for o in itertools.permutations(range(5))
    ]
    _, p = mantel([a], [b], singles(5), permutations=4000, rng=rng)
    assert p[0, 0] == pytest.approx(np.mean(every), abs=0.025)


def test_p_is_even_under_the_null_where_clips_of_a_group_are_alike(
    rng: np.random.Generator,
) -> None:
    """Embeddings and descriptor both follow the group, not each other. Moving single clips calls
    that significant; moving whole groups does not."""

    def share_significant(hide_groups: bool) -> float:
        found = []
        for _ in range(60):
            groups = np.repeat(np.arange(8), 4)
            x = rng.standard_normal((8, 5))[groups] + 0.1 * rng.standard_normal((32, 5))
            value = rng.standard_normal(8)[groups] + 0.1 * rng.standard_normal(32)
            names = singles(32) if hide_groups else [str(g) for g in groups]
            _, p = mantel(
                [cosine_distances(x)],
                [descriptor_distances(value)],
                names,
                permutations=99,
                rng=rng,
            )
            found.append(p[0, 0] <= 0.05)
        return float(np.mean(found))

    assert share_significant(hide_groups=False) < 0.15
    assert share_significant(hide_groups=True) > 0.5


def test_what_separates_two_groups_of_other_sizes_is_no_evidence(rng: np.random.Generator) -> None:
    groups = ["a"] * 5 + ["b"] * 7
    halves = np.array([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 7)
    by_group = cosine_distances(halves)
    _, p = mantel([by_group], [by_group], groups, permutations=99, rng=rng)
    assert p[0, 0] == 1.0


# --- a data set -------------------------------------------------------------------------------


def test_finds_the_descriptor_that_the_embedding_holds(rng: np.random.Generator) -> None:
    n = 60
    level, pitch = rng.standard_normal(n), rng.standard_normal(n)
    pitch[::4] = np.nan
    angle = 0.5 * level
    models = {
        "level": np.stack([np.cos(angle), np.sin(angle)], 1),
        "nothing": rng.standard_normal((n, 8)),
    }
    found = analyse("s", models, {"level": level, "pitch": pitch}, singles(n), permutations=199)
    assert found.rho[0, 0] > 0.9 and found.p[0, 0] == pytest.approx(1 / 200)
    assert abs(found.rho[1, 0]) < 0.2 and found.p[1, 0] > 0.01
    np.testing.assert_allclose(np.diag(found.model_rho), 1.0)
    known = np.isfinite(pitch)
    expected = spearmanr(
        cosine_distances(models["nothing"][known]), descriptor_distances(pitch[known])
    ).statistic
    assert found.rho[1, 1] == pytest.approx(expected, abs=1e-12)
    assert (found.n_clips, found.n_groups) == (n, n)


def test_a_descriptor_known_of_too_few_clips_is_not_judged(rng: np.random.Generator) -> None:
    pitch = np.full(20, np.nan)
    pitch[:5] = 1.0
    model = {"m": rng.standard_normal((20, 3))}
    found = analyse("s", model, {"pitch": pitch}, singles(20), permutations=9)
    assert np.isnan(found.rho).all() and np.isnan(found.p).all()


def test_refuses_too_few_clips_and_other_lengths(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="at least 10 clips, got 4"):
        analyse("tiny", {"m": rng.random((4, 2))}, {}, singles(4))
    with pytest.raises(InputError, match="level has 11 clips, not 12"):
        analyse("s", {"m": rng.random((12, 2))}, {"level": np.ones(11)}, singles(12))
    with pytest.raises(InputError, match="finite"):
        analyse("s", {"m": np.full((12, 2), np.nan)}, {"level": np.ones(12)}, singles(12))


# --- many tests, many data sets ---------------------------------------------------------------


def test_adjusted_p_values_are_benjamini_hochbergs_by_hand() -> None:
    p = np.array([[0.01, np.nan], [0.04, 0.03], [0.005, 0.5]])
    #  sorted: .005 .01 .03 .04 .5, times 5 / rank: .025 .025 .05 .05 .5
    np.testing.assert_allclose(adjust(p), [[0.025, np.nan], [0.05, 0.05], [0.025, 0.5]])


def test_averages_over_data_sets_and_counts_those_that_hold(rng: np.random.Generator) -> None:
    results = []
    for name, strength in (("one", 3.0), ("two", 0.0)):
        level = rng.standard_normal(40)
        angle = 0.2 * (strength * level + rng.standard_normal(40))
        model = {"m": np.stack([np.cos(angle), np.sin(angle)], 1)}
        results.append(
            analyse(name, model, {"level": level}, singles(40), permutations=199, seed=1)
        )
    summary = summarise(results)
    assert summary.rho[0, 0] == pytest.approx((results[0].rho[0, 0] + results[1].rho[0, 0]) / 2)
    assert summary.retained[0, 0] == pytest.approx(results[0].rho[0, 0])
    assert (summary.n_retained[0, 0], summary.n_sets[0, 0]) == (1, 2)
    assert [s["name"] for s in summary.sets] == ["one", "two"]


def test_models_that_agree_are_counted_in_every_data_set(rng: np.random.Generator) -> None:
    results = []
    for name in ("one", "two"):
        x = rng.standard_normal((30, 4))
        models = {"m": x, "twin": 2.0 * x, "other": rng.standard_normal((30, 4))}
        results.append(analyse(name, models, {"d": x[:, 0]}, singles(30), permutations=199))
    summary = summarise(results)
    assert summary.model_rho[0, 1] == pytest.approx(1.0)
    assert summary.model_n_retained[0, 1] == summary.model_n_retained[1, 0] == 2
    assert summary.model_n_retained[0, 2] == 0


def test_refuses_to_average_what_cannot_be(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="no data set"):
        summarise([])
    a = analyse("a", {"m": rng.random((12, 2))}, {"x": np.arange(12)}, singles(12), permutations=1)
    b = analyse("b", {"m": rng.random((12, 2))}, {"y": np.arange(12)}, singles(12), permutations=1)
    with pytest.raises(InputError, match="the same models"):
        summarise([a, b])


def test_a_subset_has_each_group_once(rng: np.random.Generator) -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    chosen = one_of_each_group(groups, 10, rng)
    assert sorted(groups[i] for i in chosen) == ["a", "b", "c"]
    assert len(one_of_each_group(groups, 2, rng)) == 2
