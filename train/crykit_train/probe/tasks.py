"""Labelled questions that are asked of an embedding: which clips, which label, which fold.

Every fold is made of whole groups (babies, speakers, recordings). Where the group itself is the
question (`speakers`) recordings are split in time instead, and the task says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crykit.dataset import SPLITS, Clip, without_sources
from crykit.errors import InputError, UsageError

Metric = Literal["auc", "average precision"]
CRY = "cry"
UNVERIFIED = "unverified"


@dataclass(frozen=True)
class Task:
    """Clips with a label and a fold each.

    Attributes:
        classes: the labels' values; of two, the second is the positive one.
        fold: ``train``, ``val`` or ``test`` of each clip, (clips,).
        metric: macro one-versus-rest AUC, or average precision of the positive class.
        left_out: sources that an encoder must not have heard if its score is to count.
        by_group: False where the label is the group itself.
    """

    name: str
    clips: list[Clip]
    labels: list[str]
    classes: tuple[str, ...]
    fold: NDArray[np.str_]
    metric: Metric = "auc"
    left_out: tuple[str, ...] = ()
    by_group: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        if not len(self.clips) == len(self.labels) == len(self.fold):
            raise InputError(f"task {self.name}: clips, labels and folds differ in number")

    @property
    def groups(self) -> list[str]:
        return [clip.group for clip in self.clips]

    @property
    def targets(self) -> NDArray[np.int64]:
        """Index into ``classes`` of each clip, (clips,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.labels], np.int64)

    def indices(self, fold: str) -> NDArray[np.intp]:
        """Which clips are in a fold."""
        return np.flatnonzero(self.fold == fold)

    def check(self, *, leaky: bool = False) -> Task:
        """Itself, if it can be learned and measured.

        Raises:
            InputError: a class is absent from a fold, or comes from one group alone, or a group is
                on two sides (accepted if ``leaky``).
        """
        if len(self.classes) < 2:
            raise InputError(f"task {self.name}: needs two classes, has {list(self.classes)}")
        for name in self.classes:
            mine = [i for i, label in enumerate(self.labels) if label == name]
            groups = {self.clips[i].group for i in mine}
            if self.by_group and not leaky and len(groups) < 2:
                raise InputError(
                    f"task {self.name}: class {name!r} comes from {len(groups)} group alone, so "
                    "nothing can be said of another; record more or drop the class"
                )
            absent = [f for f in SPLITS if not any(self.fold[i] == f for i in mine)]
            if absent:
                raise InputError(
                    f"task {self.name}: class {name!r} has no clip in {' and '.join(absent)}; "
                    "split anew or drop the class"
                )
        if self.by_group and not leaky:
            _check_folds(self)
        return self


def _check_folds(task: Task) -> None:
    sides: dict[str, set[str]] = defaultdict(set)
    for clip, fold in zip(task.clips, task.fold, strict=True):
        sides[clip.group].add(str(fold))
    torn = sorted(group for group, folds in sides.items() if len(folds) > 1)
    if torn:
        raise InputError(
            f"task {task.name}: group {torn[0]!r} is in {' and '.join(sorted(sides[torn[0]]))} "
            f"({len(torn)} such groups); split by group"
        )


def _task(
    name: str,
    clips: Sequence[Clip],
    label: Callable[[Clip], str],
    *,
    classes: tuple[str, ...] | None = None,
    fold: Sequence[str] | None = None,
    metric: Metric = "auc",
    left_out: tuple[str, ...] = (),
    by_group: bool = True,
) -> Task:
    if not clips:
        raise InputError(f"task {name}: the manifest holds no clip for it; choose another task")
    labels = [label(clip) for clip in clips]
    folds = np.array([clip.split for clip in clips] if fold is None else fold, dtype=np.str_)
    return Task(
        name,
        list(clips),
        labels,
        classes or tuple(sorted(set(labels))),
        folds,
        metric,
        left_out,
        by_group,
    )


def _cry_or_other(clip: Clip) -> str:
    return CRY if clip.event == CRY else "other"


def _labelled(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.event != UNVERIFIED]


def cry_detection(clips: Sequence[Clip]) -> Task:
    """Cry against everything else, in the manifest's split."""
    return _task("cry detection", _labelled(clips), _cry_or_other, classes=("other", CRY))


def leave_out(clips: Sequence[Clip], source: str, negatives_of: str | None = None) -> Task:
    """Cry detection on a source that was never heard: the stand-in for a change of domain.

    Train and val are the manifest's, without any clip or group of ``source``; test is all of its
    clips, whatever their split, cries against its own negatives, or against the test negatives of
    ``negatives_of`` where it has none.

    Raises:
        InputError: the source has no cries, or there are no negatives to rank them against.
    """
    labelled = _labelled(clips)
    cries = [c for c in labelled if c.source == source and c.event == CRY]
    others = [c for c in labelled if c.source == source and c.event != CRY]
    if negatives_of:
        others = [
            c for c in labelled if c.source == negatives_of and c.split == "test" and c.event != CRY
        ]
    if not cries or not others:
        raise InputError(
            f"leave {source} out: needs cries of it and negatives, found {len(cries)} and "
            f"{len(others)}; choose another source or name one whose negatives to take"
        )
    asked = cries + others
    held = {clip.group for clip in asked}
    kept = [
        c
        for c in without_sources(labelled, [source])
        if c.split in ("train", "val") and c.group not in held
    ]
    return _task(
        f"leave {source} out",
        kept + asked,
        _cry_or_other,
        classes=("other", CRY),
        fold=[c.split for c in kept] + ["test"] * len(asked),
        left_out=(source,),
    )


def reasons(
    clips: Sequence[Clip],
    fold: int,
    n_folds: int = 5,
    seed: int = 0,
    source: str | None = "donateacry",
) -> Task:
    """Why a baby cries, baby-disjoint: fold ``fold`` is the test, the next one val.

    Raises:
        InputError: a reason comes from fewer babies than there are folds.
        UsageError: no such fold.
    """
    if not (n_folds >= 3 and 0 <= fold < n_folds):
        raise UsageError(f"reasons: fold {fold} of {n_folds}; at least 3 folds, counted from 0")
    cries = [
        c for c in clips if c.event == CRY and c.reason and (source is None or c.source == source)
    ]
    name = f"reasons, fold {fold + 1} of {n_folds}"
    if not cries:
        raise InputError(f"{name}: no cry of the manifest has a reason; fill in that column")
    babies: dict[str, set[str]] = defaultdict(set)
    for clip in cries:
        babies[clip.reason].add(clip.group)
    for reason, of in sorted(babies.items()):
        if len(of) < n_folds:
            raise InputError(
                f"{name}: {reason!r} comes from {len(of)} group(s), fewer than {n_folds} folds, so "
                "a fold would hold none; use fewer folds or drop the reason"
            )
    number = _folds_of(cries, n_folds, seed)
    folds = np.where(
        number == fold, "test", np.where(number == (fold + 1) % n_folds, "val", "train")
    )
    heard = (source,) if source else ()
    return _task(name, cries, lambda c: c.reason, fold=folds.tolist(), left_out=heard)


def _folds_of(clips: Sequence[Clip], n_folds: int, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = [c.reason for c in clips], [c.group for c in clips]
    number = np.zeros(len(clips), np.int64)
    parts = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for k, (_, inside) in enumerate(parts.split(labels, labels, groups)):
        number[inside] = k
    return number


def speech_words(clips: Sequence[Clip], source: str = "speech_commands") -> Task:
    """Which word is said: words that every split has, speakers in one split each."""
    words = [c for c in clips if c.source == source and c.event == "speech"]
    return _common("speech words", words, lambda c: c.label)


def speech_vs_rest(clips: Sequence[Clip]) -> Task:
    """Voice activity: speech against everything but cries and other voices of babies."""
    kept = [c for c in _labelled(clips) if c.event not in (CRY, "children", "laugh", "human")]
    return _task(
        "voice activity",
        kept,
        lambda c: "speech" if c.event == "speech" else "other",
        classes=("other", "speech"),
        metric="average precision",
    )


def events(clips: Sequence[Clip]) -> Task:
    """Which kind of sound it is, speech and cries aside."""
    kept = [c for c in _labelled(clips) if c.event not in ("speech", CRY)]
    return _common("sound events", kept, lambda c: c.event)


def esc_sounds(clips: Sequence[Clip]) -> Task:
    """ESC-50's classes, as far as every split has them."""
    return _common("ESC-50 sounds", [c for c in clips if c.source == "esc50"], lambda c: c.label)


def instruments(clips: Sequence[Clip]) -> Task:
    """Musical instruments of FSDKaggle2018."""
    kept = [c for c in clips if c.source == "fsdkaggle2018"]
    return _common("instruments", kept, lambda c: c.label)


def speakers(clips: Sequence[Clip], sources: Sequence[str] = ("ami",), least: int = 3) -> Task:
    """Who speaks. The speaker is the group, so each one's recordings are split in order.

    The first 60 % train, the next 20 % are val, the rest test; who has fewer than ``least`` clips
    is left aside. Room and microphone help as much as the voice does.
    """
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.source in sources and clip.event == "speech":
            by_speaker[clip.group].append(clip)
    kept: list[Clip] = []
    folds: list[str] = []
    for _, own in sorted(by_speaker.items()):
        if len(own) < least:
            continue
        kept += sorted(own, key=lambda c: c.path)
        n_val, n_test = max(1, len(own) // 5), max(1, len(own) // 5)
        folds += ["train"] * (len(own) - n_val - n_test) + ["val"] * n_val + ["test"] * n_test
    return _task("speakers", kept, lambda c: c.group, fold=folds, by_group=False)


def _common(name: str, clips: Sequence[Clip], label: Callable[[Clip], str]) -> Task:
    """A task of the classes that each split has, from two groups at least in each."""
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        groups[label(clip), clip.split].add(clip.group)
    names = {name for name, _ in groups}
    whole = {n for n in names if all(len(groups.get((n, s), ())) > 1 for s in SPLITS)}
    return _task(name, [c for c in clips if label(c) in whole], label)


def restricted(task: Task, kept: NDArray[np.intp]) -> Task:
    """The task with only some of its training clips; val and test stay.

    Args:
        kept: indices of the training clips that stay.
    """
    chosen = np.sort(np.concatenate([kept, task.indices("val"), task.indices("test")]))
    return replace(
        task,
        clips=[task.clips[i] for i in chosen],
        labels=[task.labels[i] for i in chosen],
        fold=task.fold[chosen],
    )


def describe(task: Task) -> dict[str, dict[str, dict[str, int]]]:
    """Clips and groups of every class in every fold, for a table's notes."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for fold in SPLITS:
        inside = task.indices(fold)
        clips = Counter(task.labels[i] for i in inside)
        groups = Counter(label for label, _ in {(task.labels[i], task.groups[i]) for i in inside})
        found[fold] = {n: {"clips": clips[n], "groups": groups[n]} for n in task.classes}
    return found
