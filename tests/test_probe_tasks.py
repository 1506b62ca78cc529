"""Tasks: which clips, which labels, whole groups on one side, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from crykit.dataset import Clip, read_manifest
from crykit.errors import InputError, UsageError
from crykit_train.probe import tasks


def clip(
    name: str, event: str, group: str, split: str, source: str = "a", reason: str = ""
) -> Clip:
    return Clip(Path(name), event, group, split, source, "cc0", f"{event}-label", reason, {})


def house(source: str, groups: str) -> list[Clip]:
    """Two cries and two dogs of every group, a third of the groups in each split."""
    splits = ("train", "val", "test")
    return [
        clip(f"{source}{g}{event}{i}", event, f"{source}:{g}{event}", splits[k % 3], source)
        for k, g in enumerate(groups)
        for event in ("cry", "dog")
        for i in range(2)
    ]


def babies(reasons: dict[str, int]) -> list[Clip]:
    return [
        clip(f"{reason}{n}{i}", "cry", f"{reason}:{n}", "train", "donateacry", reason)
        for reason, many in reasons.items()
        for n in range(many)
        for i in range(2)
    ]


def test_leaving_a_source_out_keeps_its_groups_from_training() -> None:
    shared = clip("x", "dog", "b:0dog", "train", "a")  # a's clip of a recording that b has too
    unsure = clip("u", "unverified", "a:u", "train")
    task = tasks.leave_out([*house("a", "012345"), *house("b", "012"), shared, unsure], "b").check()
    learnt = [task.clips[i] for f in ("train", "val") for i in task.indices(f)]
    asked = [task.clips[i] for i in task.indices("test")]
    assert {c.source for c in learnt} == {"a"}
    assert shared not in learnt
    assert unsure not in task.clips
    assert {c.source for c in asked} == {"b"}
    assert len(asked) == 12  # of every split of b
    assert not {c.group for c in learnt} & {c.group for c in asked}
    assert task.classes == ("other", "cry")  # the positive one second
    assert task.left_out == ("b",)
    assert not any(c.split == "test" for c in learnt)


def test_negatives_may_come_from_another_source_s_test_clips() -> None:
    only_cries = [c for c in house("b", "012") if c.event == "cry"]
    clips = [*house("a", "012345"), *only_cries]
    with pytest.raises(InputError, match="name one whose negatives"):
        tasks.leave_out(clips, "b")
    task = tasks.leave_out(clips, "b", "a").check()
    asked = [task.clips[i] for i in task.indices("test")]
    negatives = [c for c in asked if c.event != "cry"]
    assert len(negatives) == 4
    assert {(c.source, c.split) for c in negatives} == {("a", "test")}


def test_each_reason_is_tested_once_and_no_baby_is_on_two_sides() -> None:
    clips = babies({"hungry": 11, "tired": 5, "burping": 5})
    seen: Counter[str] = Counter()
    for fold in range(5):
        task = tasks.reasons(clips, fold).check()  # every class in every fold
        seen.update(str(task.clips[i].path) for i in task.indices("test"))
        following = tasks.reasons(clips, (fold + 1) % 5)
        assert np.array_equal(task.indices("val"), following.indices("test"))
    assert set(seen.values()) == {1}
    assert len(seen) == len(clips)


def test_a_reason_of_one_baby_is_refused() -> None:
    with pytest.raises(InputError, match=r"'burping' comes from 1 group\(s\), fewer than 5 folds"):
        tasks.reasons(babies({"hungry": 9, "burping": 1}), 0)
    with pytest.raises(UsageError, match="at least 3 folds"):
        tasks.reasons(babies({"hungry": 9}), 0, n_folds=2)
    with pytest.raises(InputError, match="no cry of the manifest has a reason"):
        tasks.reasons(house("a", "012"), 0)


def test_a_class_of_one_group_or_absent_from_a_fold_is_refused() -> None:
    lone = [clip(f"c{i}", "cry", "one", "train") for i in range(4)]
    with pytest.raises(InputError, match="class 'cry' comes from 1 group alone"):
        tasks.cry_detection([*lone, *[c for c in house("a", "012") if c.event == "dog"]]).check()
    clips = [c for c in house("a", "012345") if c.event == "dog" or c.split != "val"]
    with pytest.raises(InputError, match="class 'cry' has no clip in val"):
        tasks.cry_detection(clips).check()


def test_a_torn_group_is_refused_unless_leaky() -> None:
    clips = [*house("a", "012345"), clip("t", "dog", "a:0dog", "test")]
    with pytest.raises(InputError, match="group 'a:0dog' is in test and train"):
        tasks.cry_detection(clips).check()
    assert tasks.cry_detection(clips).check(leaky=True)


def test_a_manifest_without_groups_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,event,split\nx.wav,cry,train\n")
    with pytest.raises(InputError, match="group missing"):
        read_manifest(tmp_path / "m.csv")


def test_subsets_keep_val_and_test() -> None:
    task = tasks.cry_detection(house("a", "012345"))
    part = tasks.restricted(task, task.indices("train")[:3])
    assert len(part.indices("train")) == 3
    for fold in ("val", "test"):
        before = [task.clips[i].path for i in task.indices(fold)]
        assert before == [part.clips[i].path for i in part.indices(fold)]
    assert [part.labels[i] for i in part.indices("train")] == [
        task.labels[i] for i in task.indices("train")[:3]
    ]


def test_speakers_are_split_in_order_within_each_voice() -> None:
    clips = [
        clip(f"s{k}{i}", "speech", f"s:{k}", "train", "ami") for k in range(2) for i in range(5)
    ]
    task = tasks.speakers(clips).check()
    for name in task.classes:
        folds = [str(f) for f, label in zip(task.fold, task.labels, strict=True) if label == name]
        assert folds == ["train"] * 3 + ["val", "test"]


@pytest.mark.data
def test_the_tasks_of_the_recordings(data_root: Path) -> None:
    clips = read_manifest(data_root / "manifest.csv")
    esc = tasks.leave_out(clips, "esc50").check()
    found = tasks.describe(esc)["test"]
    assert found["cry"] == {"clips": 34, "groups": 15}
    donate = tasks.leave_out(clips, "donateacry", "urbansound8k").check()
    assert tasks.describe(donate)["test"]["cry"] == {"clips": 393, "groups": 183}
    for fold in range(5):
        tasks.reasons(clips, fold).check()
    for make in (tasks.cry_detection, tasks.speech_words, tasks.speech_vs_rest, tasks.events):
        assert len(make(clips).check().classes) >= 2
    assert len(tasks.esc_sounds(clips).check().classes) == 26
    assert len(tasks.instruments(clips).check().classes) == 6
