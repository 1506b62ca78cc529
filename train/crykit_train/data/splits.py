"""Splits by group: who was recorded is in one split alone, labels are spread evenly over them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from crykit.dataset import SPLITS
from crykit.errors import UsageError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def assign_splits(
    groups: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 1,
    shares: Mapping[str, float] | None = None,
) -> list[str]:
    """A split for every clip, the same for all clips of a group.

    Groups are dealt out label by label, rarest first, to the split that lacks most clips of the
    label and of all. A group belongs to the rarest of its labels. Which groups go where depends
    on the seed and on the groups' names, not on the order of the rows.

    Args:
        groups, labels: of each clip.
        shares: of clips in each split; they are met as nearly as the groups' sizes allow.
    """
    shares = dict(shares or SHARES)
    if set(shares) != set(SPLITS) or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise UsageError(f"splits: expected shares of {', '.join(SPLITS)}, got {shares}")
    whole = sum(shares.values())
    shares = {split: share / whole for split, share in shares.items()}
    sizes, of_label = Counter(groups), Counter(labels)
    label_of: dict[str, str] = {}
    for group, label in zip(groups, labels, strict=True):
        best = label_of.get(group, label)
        label_of[group] = min(best, label, key=lambda name: (of_label[name], name))
    by_label: dict[str, list[str]] = defaultdict(list)
    for group, label in label_of.items():
        by_label[label].append(group)
    # What earlier labels left a split short of is owed to it by the later ones.
    owed = dict.fromkeys(SPLITS, 0.0)
    split_of: dict[str, str] = {}
    for label in sorted(by_label, key=lambda name: (of_label[name], name)):
        members = sorted(by_label[label], key=lambda g: (-sizes[g], _hash(seed, g)))
        n = sum(sizes[group] for group in members)
        owed = {split: owed[split] + shares[split] * n for split in SPLITS}
        for group in members:
            split = max(SPLITS, key=lambda name: owed[name])
            split_of[group] = split
            owed[split] -= sizes[group]
    return [split_of[group] for group in groups]


def keep_published(
    groups: Sequence[str], published: Sequence[str], labels: Sequence[str], *, seed: int = 1
) -> tuple[list[str], int]:
    """The source's own split, made clean: by group, and with a validation split.

    A group that the source has on two sides goes to train as a whole, so that what stays in test
    was heard by no training clip. Where the source has no ``val``, an eighth of the train clips,
    by group, becomes it.

    Returns:
        The splits, and how many groups were moved.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, published, strict=True):
        sides[group].add(split)
    torn = {group for group, found in sides.items() if len(found) > 1}
    splits = [
        "train" if group in torn else split for group, split in zip(groups, published, strict=True)
    ]
    if "val" not in splits:
        train = [i for i, split in enumerate(splits) if split == "train"]
        carved = assign_splits(
            [groups[i] for i in train],
            [labels[i] for i in train],
            seed=seed,
            shares={"train": 7, "val": 1, "test": 0},
        )
        for i, split in zip(train, carved, strict=True):
            splits[i] = split
    return splits, len(torn)


def _hash(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
