"""t-SNE keeps neighbours together; the number beside it is right by hand."""

from __future__ import annotations

import numpy as np
import pytest

from crykit.errors import InputError

pytest.importorskip("sklearn")

from crykit_train.understand.tsne import neighbours_agree, project  # noqa: E402


@pytest.fixture
def clusters() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(2)
    centres = 10.0 * rng.standard_normal((3, 20))
    labels = np.repeat(np.arange(3), 20)
    return centres[labels] + rng.standard_normal((60, 20)), [f"class {i}" for i in labels]


def test_clusters_stay_together_and_apart(clusters: tuple[np.ndarray, list[str]]) -> None:
    places = project(clusters[0])
    assert places.shape == (60, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    labels = np.array(clusters[1])
    assert (labels[distances.argmin(1)] == labels).all()


def test_a_seed_gives_one_picture(clusters: tuple[np.ndarray, list[str]]) -> None:
    np.testing.assert_array_equal(project(clusters[0], seed=4), project(clusters[0], seed=4))


def test_few_clips_and_constant_dimensions_are_drawn() -> None:
    x = np.random.default_rng(0).standard_normal((10, 4))
    x[:, 2] = 7.0
    assert np.isfinite(project(x)).all()


@pytest.mark.parametrize("bad", [np.ones((9, 3)), np.full((20, 3), np.inf), np.ones(20)])
def test_refuses_what_cannot_be_drawn(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="at least 10 clips"):
        project(bad)


def test_neighbours_of_clusters_agree_and_of_noise_are_at_chance(
    clusters: tuple[np.ndarray, list[str]],
) -> None:
    found, chance = neighbours_agree(*clusters)
    assert found == 1.0
    assert chance == pytest.approx(19 / 59)
    noise = np.random.default_rng(1).standard_normal((300, 10))
    labels = ["a"] * 200 + ["b"] * 100
    found, chance = neighbours_agree(noise, labels)
    assert chance == pytest.approx((199 / 299 + 99 / 299) / 2)
    assert found == pytest.approx(chance, abs=0.04)


def test_clips_of_one_recording_are_no_neighbours() -> None:
    """Twelve recordings of two takes each; labels follow the recording and nothing else."""
    rng = np.random.default_rng(6)
    x = np.repeat(rng.standard_normal((12, 30)), 2, axis=0)
    labels = [f"{i // 2 % 6}" for i in range(24)]
    groups = [str(i // 2) for i in range(24)]
    assert neighbours_agree(x, labels, k=1)[0] == 1.0
    found, chance = neighbours_agree(x, labels, groups, k=1)
    assert found < 0.6 and chance == pytest.approx(2 / 22)


def test_by_hand() -> None:
    """Angles 0, 45, 76, 84, 86 ... degrees: the second clip is nearer to the third than to its
    own kind, every other one's nearest is of its class."""
    x = np.ones((10, 2))
    x[:, 1] = np.arange(10.0) ** 2
    found, chance = neighbours_agree(x, list("aabbbbbbbb"), k=1)
    assert found == pytest.approx((1 / 2 + 8 / 8) / 2)
    assert chance == pytest.approx((1 / 9 + 7 / 9) / 2)


def test_refuses_groups_that_leave_no_neighbours() -> None:
    with pytest.raises(InputError, match="neighbours of other groups"):
        neighbours_agree(np.eye(12), ["a"] * 12, ["one"] * 12)
