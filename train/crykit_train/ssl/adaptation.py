"""The second stage: a pre-trained run goes on on unlabelled cries (Gorin et al., 2.4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crykit.dataset import Clip
from crykit.errors import InputError, UsageError
from crykit_train import checkpoint
from crykit_train.ssl.build import Plan
from crykit_train.ssl.corpus import select_clips
from crykit_train.ssl.folder import CHECKPOINT
from crykit_train.ssl.recipes import AdaptRecipe, PretrainRecipe, SupervisedRecipe

# The first run's schedule, but for these (Gorin et al., 2.4).
CHANGES: dict[str, Any] = {"batch": 200, "epochs": 100, "steps": 0}


def adaptation_plan(
    recipe: AdaptRecipe, init: Path, clips: Sequence[Clip], *, leaky: bool = False
) -> Plan:
    """What an adaptation does: encoder, projector and objective of ``init`` on other clips.

    Args:
        init: the folder of a finished run.
        clips: of the whole manifest.

    Raises:
        InputError: ``init`` is no finished run, or no clip is left.
        UsageError: a supervised run, or shards with a replay.
    """
    record, tensors, state = read_run(init)
    first = first_recipe(record, init)
    if isinstance(first.objective, SupervisedRecipe):
        raise UsageError(f"{init}: is supervised; adaptation needs a self-supervised run")
    full = adapted_recipe(recipe, first)
    heard: list[Clip] = []
    if not full.data.shards:
        heard = select_clips(clips, full.data)
        heard += replayed(recipe, first, clips, {clip.path for clip in heard})
    elif recipe.replay_share:
        raise UsageError("replay needs the manifest of the first run; give no data.shards")
    kept = ("data", "steps", "windows", "minutes", "started_from")
    started = {key: record["training"][key] for key in kept if key in record["training"]}
    started |= {"stage": record["stage"], "recipe": msgspec.to_builtins(first)}
    return Plan(
        recipe=full,
        clips=heard,
        asked=recipe,
        stage="adapt",
        leaky=leaky or bool(record["leaky"]),
        tensors={k: v for k, v in tensors.items() if k.startswith(("objective.", "compare."))},
        statistics=(float(state["mean"]), float(state["std"])),
        record={"replay_share": recipe.replay_share, "started_from": started},
    )


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Record, tensors and state of a finished run.

    Raises:
        InputError: it is none.
    """
    try:
        record = json.loads((folder / "encoder.json").read_bytes())
        _ = record["training"]["recipe"], record["stage"], record["leaky"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder}: no encoder.json of a training; --init takes the folder of a finished run"
        ) from None
    tensors, state = checkpoint.load(folder / CHECKPOINT)
    return record, tensors, state


def first_recipe(record: dict[str, Any], where: Path) -> PretrainRecipe:
    try:
        return msgspec.convert(record["training"]["recipe"], PretrainRecipe)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: its recipe is not one of pretrain or adapt ({error})") from None


def adapted_recipe(recipe: AdaptRecipe, first: PretrainRecipe) -> PretrainRecipe:
    """The first run's recipe with the adaptation's data and changes.

    Raises:
        UsageError: an unknown key, or a value of the wrong kind.
    """
    tree = msgspec.to_builtins(first)
    tree["data"] = msgspec.to_builtins(recipe.data)
    tree["views"] |= recipe.views
    tree["train"] |= CHANGES | recipe.train
    try:
        return msgspec.convert(tree, PretrainRecipe)
    except msgspec.ValidationError as error:
        raise UsageError(f"adaptation recipe: {error}; mend that key") from None


def replayed(
    recipe: AdaptRecipe, first: PretrainRecipe, clips: Sequence[Clip], taken: set[Path]
) -> list[Clip]:
    """A share of what the first run heard, whole groups of it, less what is left out now.

    Raises:
        UsageError: the first run heard shards.
    """
    if not recipe.replay_share:
        return []
    if first.data.shards:
        raise UsageError("the first run heard shards, which cannot be replayed; set replay_share 0")
    both = (*first.data.exclude_sources, *recipe.data.exclude_sources)
    data = msgspec.structs.replace(first.data, exclude_sources=tuple(dict.fromkeys(both)))
    heard = select_clips(clips, data)
    groups: dict[str, list[Clip]] = {}
    for clip in heard:
        groups.setdefault(clip.group, []).append(clip)
    names = sorted(groups)
    chosen: list[Clip] = []
    seed = int(recipe.train.get("seed", first.train.seed))
    for i in np.random.default_rng([seed, 23]).permutation(len(names)):
        if len(chosen) >= recipe.replay_share * len(heard):
            break
        chosen += groups[names[i]]
    return [clip for clip in chosen if clip.path not in taken]
