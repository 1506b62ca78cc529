"""Splits by group: shares, stratification, and that nobody is on two sides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from crykit.errors import UsageError
from crykit_train.data.splits import assign_splits, keep_published


def world(seed: int) -> tuple[list[str], list[str]]:
    """Some 1500 clips of 300 groups, a quarter of which have two labels; three labels, one rare."""
    rng = np.random.default_rng(seed)
    groups: list[str] = []
    labels: list[str] = []
    for k in range(300):
        own = rng.choice(["common", "middling", "rare"], p=[0.7, 0.25, 0.05])
        for _ in range(rng.integers(1, 10)):
            groups.append(f"g{k}")
            labels.append(own if k % 4 or rng.random() < 0.5 else "common")
    return groups, labels


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_met_for_every_label(seed: int) -> None:
    groups, labels = world(seed)
    splits = assign_splits(groups, labels, seed=seed)
    sides: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    for label, tolerance in (("common", 0.02), ("middling", 0.06), ("rare", 0.12)):
        got = Counter(s for s, name in zip(splits, labels, strict=True) if name == label)
        whole = sum(got.values())
        for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert got[split] / whole == pytest.approx(share, abs=tolerance), (label, got)


def test_rows_may_come_in_any_order() -> None:
    groups, labels = world(0)
    straight = dict(zip(groups, assign_splits(groups, labels), strict=True))
    back = dict(zip(groups[::-1], assign_splits(groups[::-1], labels[::-1]), strict=True))
    assert straight == back
    assert straight != dict(zip(groups, assign_splits(groups, labels, seed=2), strict=True))


def test_a_label_of_three_groups_is_in_train_first() -> None:
    splits = assign_splits(["a", "b", "c"], ["x"] * 3)
    assert splits.count("train") >= 1 and "test" in splits
    assert assign_splits(["a"], ["x"]) == ["train"]


def test_shares_must_name_the_splits() -> None:
    with pytest.raises(UsageError, match="shares"):
        assign_splits(["a"], ["x"], shares={"train": 1.0})


def test_a_published_split_is_made_clean() -> None:
    groups = ["a", "a", "b", "c", *(f"t{k}" for k in range(40))]
    published = ["train", "test", "test", "train", *["train"] * 40]
    splits, moved = keep_published(groups, published, ["x"] * len(groups))
    assert moved == 1 and splits[0] == splits[1] != "test" and splits[2] == "test"
    assert splits.count("val") == pytest.approx(5, abs=2)  # an eighth, as there was none
