"""Training on ever fewer labels (Gorin et al. 2023, 5 and figure 2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from crykit.dataset import read_manifest
from crykit.errors import InputError, UsageError
from crykit_train.probe.ledger import Ledger, key_of, write_json
from crykit_train.probe.metrics import bootstrap_interval, score, standard_error
from crykit_train.probe.protocol import evaluate_source
from crykit_train.probe.recipes import Precision, TaskRecipe, tasks_of
from crykit_train.probe.sources import ClipBank, normalise_untrained, open_source
from crykit_train.probe.table import Column, Row
from crykit_train.probe.tasks import Task, restricted

Tell = Callable[[str], None]


class SubsetsRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models and protocols over shares of the training labels; each share is drawn ``seeds`` times.

    ``probe.repeats`` does not count here: every draw is one repeat, as in the paper.
    """

    kind: Literal["subsets"]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    task: TaskRecipe = TaskRecipe()
    manifest: str = ""
    cache: str = ""
    shares: tuple[float, ...] = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
    seeds: int = 5
    seed: int = 1
    precision: Precision = "32-true"  # of frozen embeddings
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares) <= 0 or max(self.shares) > 1 or self.seeds < 1:
            raise ValueError("shares lie above 0 and up to 1, and seeds is 1 or more")


def draw_subset(
    labels: Sequence[str], groups: Sequence[str], share: float, seed: int
) -> NDArray[np.intp]:
    """Indices of a stratified share of clips, whole groups, at least one of every class.

    Groups are taken in random order within the rarest class that they hold, until that class has
    its share of clips; the last one is left out where that comes nearer to the share.

    Raises:
        UsageError: the share is not above 0 and up to 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of labels lies above 0 and up to 1, got {share:g}")
    rng = np.random.default_rng([seed, 17])
    members: dict[str, list[int]] = defaultdict(list)
    holders: dict[str, set[str]] = defaultdict(set)
    for i, (label, group) in enumerate(zip(labels, groups, strict=True)):
        members[group].append(i)
        holders[label].add(group)
    by_rarity = sorted(holders, key=lambda name: (len(holders[name]), name))
    chosen: list[int] = []
    taken: set[str] = set()
    for name in by_rarity:
        wanted = share * sum(label == name for label in labels)
        have = sum(labels[i] == name for i in chosen)
        free = sorted(holders[name] - taken)
        for group in (free[k] for k in rng.permutation(len(free))):
            more = sum(labels[i] == name for i in members[group])
            if have and abs(have + more - wanted) >= abs(have - wanted):
                break
            chosen += members[group]
            taken.add(group)
            have += more
    return np.array(sorted(chosen), np.intp)


def subset_task(task: Task, share: float, seed: int) -> Task:
    """The task with a share of its training labels."""
    train = task.indices("train")
    if share >= 1.0:
        return task
    groups = task.groups
    kept = draw_subset([task.labels[i] for i in train], [groups[i] for i in train], share, seed)
    return restricted(task, train[kept])


def run_subsets(
    recipe: SubsetsRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Every model, protocol and share; also ``subsets.json`` and ``subsets.png`` in the folder.

    Raises:
        InputError: the manifest, or a task of several folds.
        UsageError: the folder holds other results.
    """
    torch.set_num_threads(recipe.threads)
    clips = read_manifest(manifest, leaky=leaky)
    folds = tasks_of(recipe.task, clips, leaky=leaky)
    if len(folds) > 1:
        raise InputError(f"subsets: {recipe.task.label} has {len(folds)} folds; name one of one")
    (task,) = folds
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    bank = ClipBank(task.clips, Path(recipe.cache) if recipe.cache else None, recipe.precision)
    general = [task.clips[i] for i in task.indices("train")]
    points: list[dict[str, Any]] = []
    for column in recipe.columns:
        for row in recipe.rows:
            source = normalise_untrained(open_source(row.model), bank, general)
            for share in recipe.shares:
                key = key_of(
                    source.digest, recipe.task, column.probe, share, recipe.seeds, recipe.seed
                )
                point = ledger.get(key)
                if point is None:
                    point = _measure(source, task, column, share, recipe, bank, tell)
                    ledger.put(key, point)
                points.append({"row": row.label, "column": column.label, **point})
    found = {"leaky": leaky, "task": task.name, "points": points}
    write_json(out / "subsets.json", found)
    draw_points(found, out / "subsets.png")
    return found


def _measure(
    source: Any,
    task: Task,
    column: Column,
    share: float,
    recipe: SubsetsRecipe,
    bank: ClipBank,
    tell: Tell | None,
) -> dict[str, Any]:
    scores: list[NDArray[np.float64]] = []
    clips: list[int] = []
    outcome = None
    for k in range(recipe.seeds):
        part = subset_task(task, share, recipe.seed + k)
        probe = msgspec.structs.replace(column.probe, repeats=1, seed=recipe.seed + 100 * k)
        outcome = evaluate_source(source, [part], probe, bank, tell=tell)
        scores.append(outcome.scores[0])
        clips.append(len(part.indices("train")))
    assert outcome is not None
    values = [score(task.metric, outcome.targets, s) for s in scores]
    low, high = bootstrap_interval(task.metric, outcome.targets, np.array(scores), outcome.groups)
    return {
        "share": share,
        "train_clips": round(float(np.mean(clips)), 1),
        "value": round(float(np.mean(values)), 4),
        "standard_error": round(standard_error(values), 4) if len(values) > 1 else None,
        "values": [round(v, 4) for v in values],
        "ci95": [round(low, 4), round(high, 4)],
        "groups": len(set(outcome.groups)),
    }


def draw_points(found: dict[str, Any], path: Path) -> None:
    """Figure 2: score over the share of labels, the band is the standard error of the draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    rows = list(dict.fromkeys(p["row"] for p in found["points"]))
    columns = list(dict.fromkeys(p["column"] for p in found["points"]))
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for column, colour in zip(columns, colours * len(columns), strict=False):
        for row, style in zip(rows, ("--", "-", ":", "-.") * len(rows), strict=False):
            line = [p for p in found["points"] if (p["row"], p["column"]) == (row, column)]
            if not line:
                continue
            x = [100 * p["share"] for p in line]
            y = np.array([p["value"] for p in line])
            error = np.array([p["standard_error"] or 0.0 for p in line])
            axis.plot(x, y, style, color=colour, marker="o", ms=3, label=f"{row}, {column}")
            axis.fill_between(x, y - error, y + error, color=colour, alpha=0.15)
    axis.set(xscale="log", xlabel="share of the training labels, %", ylabel="test AUC")
    ticks = sorted({100 * p["share"] for p in found["points"]})
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    axis.set_title(found["task"] + (" (LEAKY SPLIT)" if found["leaky"] else ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
