"""The statistical baseline: group-wise folds, the scaler within them, a search that finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crykit.dataset import Clip
from crykit.errors import InputError
from crykit_train.probe import baselines
from crykit_train.probe.baselines import BaselineRecipe, GridRecipe, evaluate_baseline, group_folds
from crykit_train.probe.tasks import Task

SMALL = BaselineRecipe(
    grid=GridRecipe(
        forest_trees=(20,),
        forest_leaf=(1,),
        logistic_c=(1e-6, 1e-2),
        linear_svm_c=(1e-6,),
        svm_c=(),
    ),
    folds=5,
    repeats=2,
)


def asked(n_groups: int, classes: tuple[str, ...] = ("a", "b"), clips_each: int = 3) -> Task:
    clips, labels, folds = [], [], []
    for g in range(n_groups):
        fold = ("train", "train", "val", "test")[g // len(classes) % 4]
        for i in range(clips_each):
            label = classes[g % len(classes)]
            clips.append(Clip(Path(f"{g}-{i}"), label, f"g{g}", fold, "s", "l", label, "", {}))
            labels.append(label)
            folds.append(fold)
    return Task("toy", clips, labels, classes, np.array(folds))


def rows_of(task: Task) -> dict[Path, int]:
    return {clip.path: i for i, clip in enumerate(task.clips)}


def test_folds_hold_whole_groups_and_every_class() -> None:
    task = asked(24)
    for learn, held in group_folds(task.targets, task.groups, 10, seed=0):
        assert not {task.groups[i] for i in learn} & {task.groups[i] for i in held}
        assert set(task.targets[held]) == {0, 1}
    assert len(group_folds(task.targets, task.groups, 10, 0)) == 10
    few = asked(8)
    assert len(group_folds(few.targets, few.groups, 10, 0)) == 4  # a class has four groups


def test_a_class_of_one_group_cannot_be_cross_validated() -> None:
    with pytest.raises(InputError, match="two classes of two groups each"):
        group_folds(np.array([0, 0, 0, 1, 1]), ["a", "b", "c", "d", "d"], 10, 0)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_the_search_ranks_by_what_generalises_to_new_groups(classes: tuple[str, ...]) -> None:
    task = asked(16 * len(classes), classes)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(task.clips), 12)).astype(np.float32)
    x[np.arange(len(x)), task.targets] += 2.5
    outcome, searched = evaluate_baseline(x, [task], SMALL, rows_of(task))
    found = outcome.summary(draws=50)
    assert found["value"] > 0.85
    assert found["repeats"] == 2
    assert set(searched["toy"]) == {"random forest", "logistic regression", "svm"}
    best = max(searched["toy"].values(), key=lambda v: v["cv_score"])
    assert found["chosen"][0]["cv_score"] == best["cv_score"]


def test_what_only_tells_the_group_scores_chance_in_the_search() -> None:
    """A group's own signature is perfect within a clip-wise fold and worth nothing here."""
    task = asked(80, clips_each=4)
    rng = np.random.default_rng(1)
    signature = {g: rng.normal(size=200) * 5 for g in sorted(set(task.groups))}
    x = np.array([signature[g] for g in task.groups], np.float32)
    x += rng.normal(size=x.shape).astype(np.float32) * 0.01
    _, searched = evaluate_baseline(x, [task], SMALL, rows_of(task))
    assert max(v["cv_score"] for v in searched["toy"].values()) < 0.75
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    learn = task.fold != "test"
    model = baselines._pipeline("logistic regression", 0, 2)
    clip_wise = StratifiedKFold(5, shuffle=True, random_state=0)
    y = task.targets[learn]
    leaky = cross_val_score(model, x[learn], y, cv=clip_wise, scoring="roc_auc")
    assert leaky.mean() > 0.95


def test_the_scaler_is_fitted_within_the_fold() -> None:
    task = asked(16)
    x = np.random.default_rng(2).normal(size=(len(task.clips), 5)).astype(np.float32)
    model = baselines._pipeline("svm", 0, 2)
    half = np.arange(0, len(x), 2)
    model.fit(x[half], task.targets[half])
    assert model.named_steps["scale"].mean_ == pytest.approx(x[half].mean(0), abs=1e-6)


def test_scores_of_a_class_that_was_never_seen_are_lowest() -> None:
    from sklearn.ensemble import RandomForestClassifier

    x = np.random.default_rng(3).normal(size=(20, 3))
    model = RandomForestClassifier(5, random_state=0).fit(x, np.array([0, 2] * 10))
    scores = baselines.scores_of(model, x, 3)
    assert (scores[:, 1] < scores[:, [0, 2]].min()).all()


def test_an_empty_grid_is_refused() -> None:
    empty = GridRecipe((), (), (), (), (), ())
    task = asked(16)
    x = np.zeros((len(task.clips), 2), np.float32)
    with pytest.raises(InputError, match="the grid is empty"):
        evaluate_baseline(x, [task], BaselineRecipe(grid=empty), rows_of(task))
