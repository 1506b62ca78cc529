"""The statistical baseline: ComParE 2016 and a classic classifier, chosen by group-wise search.

Gorin et al. (2023), 3.2: random forest, logistic regression and support vector machine, grid search
by 10-fold cross-validation for the mean AUC, several seeds. The folds here hold whole groups, and
the scaler is fitted within each.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from crykit.dataset import read_manifest
from crykit.errors import InputError
from crykit_train.compare import compare_of
from crykit_train.probe.ledger import Ledger, key_of
from crykit_train.probe.metrics import average_precision, class_scores, macro_auc
from crykit_train.probe.outcome import Outcome, pooled
from crykit_train.probe.recipes import TaskRecipe, tasks_of
from crykit_train.probe.tasks import Task

Kind = Literal["random forest", "logistic regression", "svm"]
KINDS: tuple[Kind, ...] = ("random forest", "logistic regression", "svm")
Tell = Callable[[str], None]


class GridRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the search tries. An empty list leaves a classifier out."""

    forest_trees: tuple[int, ...] = (500,)
    forest_leaf: tuple[int, ...] = (1, 3, 10)
    logistic_c: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    svm_c: tuple[float, ...] = (0.1, 1.0, 10.0)
    svm_kernels: tuple[Literal["linear", "rbf"], ...] = ("linear", "rbf")
    linear_svm_c: tuple[float, ...] = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


class BaselineRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `crykit train baseline` run."""

    manifest: str = ""
    cache: str = ""
    tasks: tuple[TaskRecipe, ...] = (TaskRecipe(),)
    grid: GridRecipe = GridRecipe()
    folds: int = 10
    repeats: int = 5
    seed: int = 1
    jobs: int = 1


def evaluate_baseline(
    features: NDArray[np.float32],
    folds: Sequence[Task],
    recipe: BaselineRecipe,
    rows: Mapping[Path, int],
    tell: Tell | None = None,
) -> tuple[Outcome, dict[str, dict[str, Any]]]:
    """Choose by search within train and val together, then score the test fold.

    Args:
        features: (clips, features) of a bank.
        rows: which of them belongs to a clip's path.

    Returns:
        The outcome of the chosen classifier over the repeats, and of every kind its best mean
        cross-validation score and setting, by fold.
    """
    outcomes: list[Outcome] = []
    searched: dict[str, dict[str, Any]] = {}
    for task in folds:
        x = features[[rows[clip.path] for clip in task.clips]].astype(np.float64)
        learn = np.sort(np.concatenate([task.indices("train"), task.indices("val")]))
        kinds: dict[Kind, tuple[Any, dict[str, Any]]] = {
            kind: _search(kind, x[learn], task, learn, recipe, tell)
            for kind in KINDS
            if _grid(kind, recipe.grid, len(task.classes))
        }
        if not kinds:
            raise InputError("baseline: the grid is empty; give one classifier values to try")
        searched[task.name] = {k: v for k, (_, v) in kinds.items()}
        best = max(kinds, key=lambda k: kinds[k][1]["cv_score"])
        test = task.indices("test")
        scores: list[NDArray[np.float64]] = []
        for repeat in range(recipe.repeats):
            model = _seeded(kinds[best][0], recipe.seed + repeat)
            scores.append(
                scores_of(_fitted(model, x[learn], task.targets[learn]), x[test], len(task.classes))
            )
        groups = [task.groups[i] for i in test]
        chosen = {"classifier": best, **kinds[best][1]}
        outcomes.append(Outcome(task, task.targets[test], groups, np.array(scores), [chosen]))
    return pooled(outcomes), searched


def run_baseline(
    recipe: BaselineRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Every task of the recipe; results by task, also in ``results.json`` of the folder.

    Raises:
        InputError: the manifest, or a task that it cannot answer.
        UsageError: the folder holds other results.
        MissingPart: openSMILE is not installed.
    """
    clips = read_manifest(manifest, leaky=leaky)
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    cache = Path(recipe.cache) if recipe.cache else None
    found: dict[str, Any] = {"leaky": leaky}
    for asked in recipe.tasks:
        folds = tasks_of(asked, clips, leaky=leaky)
        key = key_of(asked, recipe.grid, recipe.folds, recipe.repeats, recipe.seed)
        cell = ledger.get(key)
        if cell is None:
            union = list({c.path: c for task in folds for c in task.clips}.values())
            row = {clip.path: i for i, clip in enumerate(union)}
            features = compare_of(union, cache)
            outcome, searched = evaluate_baseline(features, folds, recipe, row, tell)
            cell = {"task": asked.label, **outcome.summary(), "searched": searched}
            ledger.put(key, cell)
        found[asked.label] = cell
    return found


def group_folds(
    targets: NDArray[np.int64], groups: Sequence[str], n_folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Stratified folds of whole groups, as many as the rarest class has groups if that is fewer.

    Raises:
        InputError: a class comes from one group alone.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    holders: dict[int, set[str]] = defaultdict(set)
    for target, group in zip(targets.tolist(), groups, strict=True):
        holders[target].add(group)
    fewest = min(len(of) for of in holders.values())
    if fewest < 2 or len(holders) < 2:
        raise InputError(
            "cross-validation needs two classes of two groups each; "
            f"the smallest class has {fewest}: record more or drop it"
        )
    split = StratifiedGroupKFold(min(n_folds, fewest), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer clips of a class than folds
        return list(split.split(targets, targets, np.asarray(groups)))


def _search(
    kind: Kind,
    x: NDArray[np.float64],
    task: Task,
    learn: NDArray[np.intp],
    recipe: BaselineRecipe,
    tell: Tell | None,
) -> tuple[Any, dict[str, Any]]:
    """The best model of a kind, not yet fitted, and its mean score over the folds."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV

    y = task.targets[learn]
    folds = group_folds(y, [task.groups[i] for i in learn], recipe.folds, recipe.seed)
    if tell:
        tell(f"{task.name}: {kind}, {len(folds)} folds of whole groups")

    def scorer(model: Any, inputs: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
        scores = scores_of(model, inputs, len(task.classes))
        if task.metric == "average precision":
            return float(average_precision(targets, scores))
        return macro_auc(targets, scores, absent_ok=True)

    search: Any = GridSearchCV(
        _pipeline(kind, recipe.seed, len(task.classes)),
        _grid(kind, recipe.grid, len(task.classes)),
        scoring=scorer,
        cv=folds,
        n_jobs=recipe.jobs,
        refit=False,
        error_score="raise",  # pyright: ignore[reportArgumentType]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(x, y)
    setting = {k.split("__")[-1]: _plain(v) for k, v in search.best_params_.items()}
    model = search.estimator.set_params(**search.best_params_)
    return model, {
        "cv_score": round(float(search.best_score_), 4),
        "cv_folds": len(folds),
        "setting": setting,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else type(value).__name__


def _pipeline(kind: Kind, seed: int, n_classes: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if kind == "random forest":
        model: Any = RandomForestClassifier(class_weight="balanced", random_state=seed, n_jobs=1)
    elif kind == "svm":
        model = LinearSVC(class_weight="balanced", dual="auto", max_iter=2000, random_state=seed)
    else:
        # With more features than clips the dual is many times faster; it does two classes only.
        model = LogisticRegression(
            solver="liblinear", dual=True, class_weight="balanced", max_iter=200, random_state=seed
        )
        if n_classes > 2:
            model = OneVsRestClassifier(model)
    return Pipeline([("scale", StandardScaler()), ("model", model)])


def _grid(kind: Kind, grid: GridRecipe, n_classes: int) -> list[dict[str, list[Any]]]:
    from sklearn.svm import SVC

    if kind == "random forest":
        leaves, trees = list(grid.forest_leaf), list(grid.forest_trees)
        both = {"model__n_estimators": trees, "model__min_samples_leaf": leaves}
        return [both] if leaves and trees else []
    if kind == "logistic regression":
        name = "model__estimator__C" if n_classes > 2 else "model__C"
        return [{name: list(grid.logistic_c)}] if grid.logistic_c else []
    found: list[dict[str, list[Any]]] = []
    if grid.linear_svm_c:
        found.append({"model__C": list(grid.linear_svm_c)})
    if grid.svm_c and grid.svm_kernels:
        machine = SVC(class_weight="balanced", decision_function_shape="ovr", cache_size=1000)
        kernels = {"model__C": list(grid.svm_c), "model__kernel": list(grid.svm_kernels)}
        found.append({"model": [machine], **kernels})
    return found


def _seeded(model: Any, seed: int) -> Any:
    from sklearn.base import clone

    fresh: Any = clone(model)
    names = [n for n in fresh.get_params() if n.endswith("random_state")]
    return fresh.set_params(**dict.fromkeys(names, seed))


def _fitted(model: Any, x: NDArray[np.float64], y: NDArray[np.int64]) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def scores_of(model: Any, x: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """One-versus-rest scores of a fitted scikit-learn model, (n, n_classes).

    A class that the model never saw scores lowest of all.
    """
    out = np.full((len(x), n_classes), -1e9)
    if hasattr(model, "decision_function"):
        decision = np.asarray(model.decision_function(x))
        if decision.ndim == 1:
            decision = np.stack([-decision, decision], axis=1)
    else:
        decision = class_scores(np.log(np.clip(model.predict_proba(x), 1e-12, 1.0)))
    out[:, model.classes_] = decision
    return out
