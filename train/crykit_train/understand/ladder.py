"""The leakage ladder: how accuracy on cry reasons rises while nothing is learnt.

One model, one set of cries, and ways to split them that the literature has used: by baby; by clip,
so that a baby is on both sides; by clip after augmentation, so that copies of one clip are on both
sides; and the same with the rare reasons filled up by copies. Beside each stands the same with
reasons dealt out to babies by chance: what is scored there can only be memory.
"""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, Clip, read_clip, read_manifest
from crykit.errors import InputError
from crykit.files import write_aside
from crykit_train.probe.metrics import bootstrap_interval, macro_auc

Array = NDArray[np.float64]
Progress = Callable[[int, int, float], None]
SPEED = (0.9, 1.1)
NOISE_SNR_DB = (10.0, 30.0)
GAIN_DB = (-6.0, 6.0)


class LadderRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which cries, how many folds and repeats, and the one model of all rungs."""

    source: str = "donateacry"
    folds: int = 5
    repeats: int = 5
    copies: int = 4
    # Rare reasons are filled up with at most so many copies of a clip.
    balance_copies: int = 8
    model: Literal["forest", "neighbour"] = "forest"
    trees: int = 100
    seed: int = 1
    bootstrap: int = 500


@dataclass(frozen=True)
class Rung:
    """A way to split. ``leaky``: what is scored was, in part, learned from.

    ``copies`` tells when clips are copied: "none", "before" the split and evenly, "balance" before
    the split until classes are as large or copies run out, or "after", for training alone.
    """

    name: str
    title: str
    by_baby: bool
    copies: Literal["none", "before", "balance", "after"]

    @property
    def leaky(self) -> bool:
        return not self.by_baby


RUNGS = (
    Rung("baby_disjoint", "by baby", True, "none"),
    Rung("augmented_after", "by baby, copies\nin training alone", True, "after"),
    Rung("clip_wise", "by clip", False, "none"),
    Rung("augmented_before", "by clip, copies\nbefore the split", False, "before"),
    Rung("balanced_before", "by clip, copies to\nbalance, before it", False, "balance"),
)


@dataclass(frozen=True)
class Pool:
    """Features of clips and of their copies; ``origin`` is the clip that a row comes from."""

    features: Array
    origin: NDArray[np.intp]
    is_copy: NDArray[np.bool_]


def run_ladder(
    recipe: LadderRecipe, manifest: Path, out: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Climb the ladder; writes ``ladder.json`` and ``ladder.png`` to ``out``.

    Returns:
        Rows by rung and labels (true, or dealt out by chance): accuracy, balanced accuracy and
        macro AUC with intervals over babies, their spread over repeats, and what is held out.

    Raises:
        InputError: no such cries, or a reason of fewer babies than there are folds.
    """
    clips = [
        clip for clip in read_manifest(manifest) if clip.source == recipe.source and clip.reason
    ]
    classes, targets = _classes(clips, recipe)
    babies = np.unique([clip.group for clip in clips], return_inverse=True)[1]
    steps = len(clips) + 2 * len(RUNGS) * recipe.repeats
    done = 0

    def tell(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, steps, float("nan"))

    pool = make_pool(clips, recipe, tell)
    shuffled = shuffle_over_babies(targets, babies, recipe.repeats, recipe.seed)
    rows = []
    for rung in RUNGS:
        for chance, labels in ((False, [targets] * recipe.repeats), (True, shuffled)):
            rows.append(_climb(rung, chance, labels, babies, pool, len(classes), recipe, tell))
    found: dict[str, Any] = {
        "leaky": True,
        "note": 'a diagnostic: rows with "leaky": true are no measure of any model',
        "source": recipe.source,
        "clips": len(clips),
        "babies": int(babies.max()) + 1,
        "classes": {
            name: {
                "clips": int((targets == k).sum()),
                "babies": len(set(babies[targets == k].tolist())),
            }
            for k, name in enumerate(classes)
        },
        "always_the_commonest": round(float(np.bincount(targets).max() / len(targets)), 4),
        "recipe": msgspec.to_builtins(recipe),
        "rungs": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    with write_aside(out / "ladder.json") as file:
        file.write((json.dumps(found, indent=2) + "\n").encode())
    draw_ladder(found, out / "ladder.png")
    return found


def _classes(
    clips: Sequence[Clip], recipe: LadderRecipe
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    names, targets = np.unique([clip.reason for clip in clips], return_inverse=True)
    if len(names) < 2:
        raise InputError(
            f"ladder: {recipe.source!r} has cries of {len(names)} reasons; two or more are needed"
        )
    groups: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        groups[clip.reason].add(clip.group)
    rarest = min(groups, key=lambda name: len(groups[name]))
    if len(groups[rarest]) < recipe.folds:
        raise InputError(
            f"ladder: {rarest} has {len(groups[rarest])} babies for {recipe.folds} folds, so a "
            "fold would have none; lower ladder.folds"
        )
    return tuple(str(name) for name in names), targets


# --- features and copies ----------------------------------------------------------------------


def make_pool(
    clips: Sequence[Clip],
    recipe: LadderRecipe,
    tell: Callable[[int], None] = lambda n: None,
) -> Pool:
    """Features of every clip and of as many copies as any rung asks for."""
    wanted = max(recipe.copies, recipe.balance_copies)
    features: list[Array] = []
    origin: list[int] = []
    is_copy: list[bool] = []
    for number, clip in enumerate(clips):
        samples = read_clip(clip)
        rng = np.random.default_rng([recipe.seed, number])
        for copy in range(wanted + 1):
            features.append(clip_features(augment(samples, rng) if copy else samples))
            origin.append(number)
            is_copy.append(copy > 0)
        tell(1)
    return Pool(np.stack(features), np.array(origin), np.array(is_copy))


def augment(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A copy as published recipes make them: speed, a shift in time, white noise, gain."""
    n = round(len(samples) / rng.uniform(*SPEED))
    at = np.linspace(0, len(samples) - 1, n)
    out = np.interp(at, np.arange(len(samples)), samples)
    out = np.roll(out, int(rng.integers(0, n)))
    rms = float(np.sqrt(np.mean(np.square(out)))) + 1e-9
    out += rng.standard_normal(n) * rms * 10 ** (-rng.uniform(*NOISE_SNR_DB) / 20)
    out *= 10 ** (rng.uniform(*GAIN_DB) / 20)
    return np.clip(out, -1, 1).astype(np.float32)


def clip_features(samples: NDArray[np.float32]) -> Array:
    """Statistics of the log-mel: mean, deviation and mean step of each of 64 bands, (192,)."""
    import torch

    from crykit.nn.logmel import LogMel

    global _front_end
    if _front_end is None:
        _front_end = LogMel(n_mels=64)
    short = SAMPLE_RATE_HZ // 10
    padded = np.pad(samples, (0, max(0, short - len(samples))))
    with torch.no_grad():
        log_mel = _front_end(torch.from_numpy(padded)[None])[0, 0].double().numpy()
    steps = np.abs(np.diff(log_mel, axis=1)).mean(axis=1)
    return np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1), steps])


_front_end: Any = None


# --- splits and scores ------------------------------------------------------------------------


def shuffle_over_babies(
    targets: NDArray[np.intp], babies: NDArray[np.intp], repeats: int, seed: int
) -> list[NDArray[np.intp]]:
    """Labels that cannot be learnt: each baby gets one reason, those of all babies permuted.

    A baby's own reason is its most frequent. Shares of clips stay about what they were.
    """
    own = np.array([Counter(targets[babies == b]).most_common(1)[0][0] for b in np.unique(babies)])
    rng = np.random.default_rng([seed, 99])
    return [rng.permutation(own)[babies] for _ in range(repeats)]


def rows_of(rung: Rung, pool: Pool, labels: NDArray[np.intp], copies: int) -> NDArray[np.intp]:
    """Rows of the pool that a rung splits: clips, and copies that it makes before."""
    clips = np.flatnonzero(~pool.is_copy)
    if rung.copies in ("none", "after"):
        return clips
    nth = np.arange(len(pool.origin)) - clips[pool.origin]  # 0 for the clip, then its copies
    if rung.copies == "before":
        return np.flatnonzero(nth <= copies)
    largest = int(np.bincount(labels).max())
    chosen = [clips]
    for label in np.unique(labels):
        spare = np.flatnonzero(pool.is_copy & (labels[pool.origin] == label))
        # First copies of all clips of the class, then second ones.
        spare = spare[np.lexsort((spare, nth[spare]))]
        chosen.append(spare[: largest - int((labels == label).sum())])
    return np.sort(np.concatenate(chosen))


def held_out_scores(
    rung: Rung,
    pool: Pool,
    labels: NDArray[np.intp],
    babies: NDArray[np.intp],
    recipe: LadderRecipe,
    seed: int,
) -> tuple[NDArray[np.intp], Array]:
    """Rows that were held out once each, and the class probabilities they got, (rows, classes)."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = rows_of(rung, pool, labels, recipe.copies)
    y, group = labels[pool.origin[rows]], babies[pool.origin[rows]]
    kind = StratifiedGroupKFold if rung.by_baby else StratifiedKFold
    folds = kind(recipe.folds, shuffle=True, random_state=seed)
    scores = np.zeros((len(rows), int(labels.max()) + 1))
    with warnings.catch_warnings():
        # Reasons dealt out by chance may leave one with fewer clips than there are folds.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(folds.split(rows, y, group if rung.by_baby else None))
    for train, held in parts:
        learnt = rows[train]
        if rung.copies == "after":
            nth = np.arange(len(pool.origin)) - np.flatnonzero(~pool.is_copy)[pool.origin]
            mine = np.isin(pool.origin, pool.origin[learnt]) & (nth <= recipe.copies)
            learnt = np.flatnonzero(mine)
        model = _model(recipe, seed)
        model.fit(pool.features[learnt], labels[pool.origin[learnt]])
        scores[np.ix_(held, model.classes_)] = model.predict_proba(pool.features[rows[held]])
    return rows, scores


def _model(recipe: LadderRecipe, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if recipe.model == "neighbour":
        return make_pipeline(StandardScaler(), KNeighborsClassifier(1))
    return ExtraTreesClassifier(recipe.trees, class_weight="balanced", random_state=seed)


def _climb(
    rung: Rung,
    chance: bool,
    labels: Sequence[NDArray[np.intp]],
    babies: NDArray[np.intp],
    pool: Pool,
    n_classes: int,
    recipe: LadderRecipe,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    accuracy, balanced, aucs, intervals = [], [], [], []
    n_rows = 0
    for repeat, of_repeat in enumerate(labels):
        rows, scores = held_out_scores(rung, pool, of_repeat, babies, recipe, recipe.seed + repeat)
        y, group = of_repeat[pool.origin[rows]], babies[pool.origin[rows]]
        right = scores.argmax(axis=1) == y
        accuracy.append(float(right.mean()))
        balanced.append(float(np.mean([right[y == k].mean() for k in range(n_classes)])))
        aucs.append(macro_auc(y, scores))
        intervals.append(_intervals(right, y, scores, group, recipe))
        n_rows = len(rows)
        tell(1)
    low_high = np.mean(intervals, axis=0)
    return {
        "rung": rung.name,
        "leaky": rung.leaky,
        "labels": "dealt out by chance" if chance else "true",
        "held_out": n_rows,
        "babies": int(babies.max()) + 1,
        "accuracy": _summary(accuracy, low_high[0]),
        "balanced_accuracy": _summary(balanced, low_high[1]),
        "macro_auc": _summary(aucs, low_high[2]),
    }


def _intervals(
    right: NDArray[np.bool_],
    y: NDArray[np.intp],
    scores: Array,
    group: NDArray[np.intp],
    recipe: LadderRecipe,
) -> Array:
    """95 % intervals over resampled babies of accuracy, balanced accuracy, macro AUC; (3, 2)."""
    rng = np.random.default_rng([recipe.seed, 5])
    n, draws = int(group.max()) + 1, recipe.bootstrap
    weights = rng.multinomial(n, np.full(n, 1 / n), draws)[:, group].astype(np.float64)
    accuracy = weights @ right / weights.sum(axis=1)
    per_class = []
    for k in np.unique(y):
        mine = y == k
        whole = weights[:, mine].sum(axis=1)
        per_class.append(
            np.divide(
                weights[:, mine] @ right[mine], whole, out=np.full(draws, np.nan), where=whole > 0
            )
        )
    balanced = np.nanmean(per_class, axis=0)  # a draw without a class is over the others
    names = [str(g) for g in group]
    auc = bootstrap_interval("auc", y, scores[None], names, draws, recipe.seed)
    return np.array(
        [np.quantile(accuracy, [0.025, 0.975]), np.quantile(balanced, [0.025, 0.975]), auc]
    )


def _summary(values: Sequence[float], interval: Array) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "interval_over_babies": [round(float(v), 4) for v in interval],
        "deviation_over_repeats": round(float(np.std(values, ddof=1)), 4)
        if len(values) > 1
        else None,
    }


# --- the picture ------------------------------------------------------------------------------


def draw_ladder(found: dict[str, Any], path: Path) -> None:
    """The three scores of every rung, true labels beside dealt-out ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    colours = {"true": "#0072b2", "dealt out by chance": "#d55e00"}
    levels = {
        "accuracy": found["always_the_commonest"],
        "balanced_accuracy": 1 / len(found["classes"]),
        "macro_auc": 0.5,
    }
    for axis, (metric, level) in zip(axes, levels.items(), strict=True):
        for shift, (labels, colour) in zip((-0.18, 0.18), colours.items(), strict=True):
            rows = [row for row in found["rungs"] if row["labels"] == labels]
            means = [row[metric]["mean"] for row in rows]
            spans = np.array([row[metric]["interval_over_babies"] for row in rows]).T
            at = np.arange(len(rows)) + shift
            error = np.maximum([np.array(means) - spans[0], spans[1] - np.array(means)], 0)
            axis.bar(at, means, 0.36, color=colour, yerr=error, capsize=3, label=labels)
        axis.axhline(level, color="black", linestyle=":", linewidth=1)
        titles = [rung.title + ("\nLEAKY" if rung.leaky else "") for rung in RUNGS]
        axis.set_xticks(range(len(RUNGS)), titles, fontsize=6)
        axis.set_ylim(0, 1)
        axis.set_ylabel(metric.replace("_", " ").replace("auc", "AUC"))
        axis.grid(axis="y", alpha=0.3)
    axes[1].legend(title="reasons", loc="upper left", fontsize=8, title_fontsize=8)
    figure.suptitle(
        f"The leakage ladder: {found['clips']} cries of {found['babies']} babies; "
        "dotted: always the commonest reason, and chance"
    )
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100, format="png")
    pyplot.close(figure)
    with write_aside(path) as file:
        file.write(picture.getvalue())
