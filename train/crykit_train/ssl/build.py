"""From a recipe to its objective, its clips and its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, data_summary
from crykit.errors import UsageError
from crykit.nn.encoders import Encoder, build_encoder
from crykit_train.compare import FEATURES
from crykit_train.ssl.compare_windows import CompareWindows
from crykit_train.ssl.corpus import LogMelCorpus, window_frames
from crykit_train.ssl.objectives import Byol, Hybrid, Objective, SimClr, Supervised
from crykit_train.ssl.recipes import (
    ByolRecipe,
    HybridRecipe,
    PretrainRecipe,
    SimclrRecipe,
    SupervisedRecipe,
)
from crykit_train.ssl.sources import CorpusSource, ShardSource, Source, shard_urls


@dataclass
class Plan:
    """A run that is about to begin.

    Args:
        recipe: in full; for an adaptation, the first run's with its changes.
        clips: what is heard; empty with shards.
        asked: the recipe as it was given, which ``--resume`` must meet again.
        stage: pretrain or adapt.
        started_from: record of the first run, with its tensors, mean and deviation.
    """

    recipe: PretrainRecipe
    clips: list[Clip]
    asked: Any
    stage: str = "pretrain"
    leaky: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    statistics: tuple[float, float] | None = None
    record: dict[str, Any] = field(default_factory=dict)


def class_names(plan: Plan) -> list[str]:
    """Each clip's class, where the objective is supervised; else nothing.

    Raises:
        UsageError: shards, whose classes nobody has listed.
    """
    objective = plan.recipe.objective
    if not isinstance(objective, SupervisedRecipe):
        return []
    if plan.recipe.data.shards:
        raise UsageError(
            "the supervised control needs every clip's label beforehand: give a manifest in place "
            "of data.shards"
        )
    return [c.event if objective.label == "event" else c.label for c in plan.clips]


def build_objective(recipe: PretrainRecipe, classes: int = 0) -> Objective:
    """The encoder with the projectors of its objective.

    Raises:
        UsageError: an unknown encoder or option, or a window that is too short for it.
    """
    encoder = build_encoder(recipe.encoder.name, **recipe.encoder.options)
    check_window(encoder, recipe.views.window_s)
    o = recipe.objective
    if isinstance(o, SimclrRecipe):
        return SimClr(encoder, o.hidden, o.size, o.temperature, batch_norm=o.batch_norm)
    if isinstance(o, HybridRecipe):
        return Hybrid(encoder, FEATURES, o.hidden, o.alpha, o.beta, o.target_decay)
    if isinstance(o, ByolRecipe):
        return Byol(encoder, o.hidden, o.size, o.target_decay)
    return Supervised(encoder, classes)


def check_window(encoder: Encoder, window_s: float) -> None:
    frames = window_frames(window_s)
    if frames < encoder.min_frames:
        raise UsageError(
            f"views.window_s {window_s:g} is {frames} frames, but {encoder.name} needs "
            f"{encoder.min_frames}; take a longer window"
        )


def build_source(
    plan: Plan,
    n_mels: int,
    *,
    rank: int,
    world_size: int,
    position: tuple[int, int],
    labels: NDArray[np.int64] | None,
    scale: Tensor | None,
    update: Callable[[int, int], None] | None,
) -> Source:
    """Batches of what the plan hears.

    Args:
        rank, world_size: this process among how many.
        position: where a source of shards goes on.
        labels: (clips,) class numbers of a supervised run.
        scale: of the ComParE features, from an earlier run.
        update: called with (clips read, clips).
    """
    r = plan.recipe
    frames = window_frames(r.views.window_s)
    common: dict[str, Any] = {
        "chunks": 2 if r.views.own_chunks else 1,
        "seed": r.train.seed,
        "rank": rank,
        "world_size": world_size,
    }
    hybrid = r.objective if isinstance(r.objective, HybridRecipe) else None
    if r.data.shards:
        if hybrid is not None:
            raise UsageError(
                "the hybrid needs features of every window beforehand: give a manifest in place "
                "of data.shards"
            )
        return ShardSource(r.data, frames, r.train.batch, position=position, **common)
    cache = Path(r.data.cache) if r.data.cache else None
    corpus = LogMelCorpus(plan.clips, n_mels, cache=cache, update=update)
    compare = None
    if hybrid is not None:
        compare = CompareWindows(
            corpus,
            frames,
            most=hybrid.windows_per_clip,
            cache=cache,
            scale=scale,
            update=update,
        )
    return CorpusSource(corpus, frames, r.train.batch, labels=labels, compare=compare, **common)


def describe_data(plan: Plan) -> Any:
    """What was heard, for the record."""
    if not plan.recipe.data.shards:
        return data_summary(plan.clips)
    urls, clips, leaky = shard_urls(plan.recipe.data)
    return {"shards": len(urls), "clips": clips, "leaky": leaky}


def build_optimiser(recipe: PretrainRecipe, objective: Objective) -> torch.optim.Optimizer:
    t = recipe.train
    moved = [p for p in objective.parameters() if p.requires_grad]
    if t.optimiser == "sgd":
        return torch.optim.SGD(
            moved, lr=t.learning_rate, momentum=t.momentum, weight_decay=t.weight_decay
        )
    return torch.optim.Adam(moved, lr=t.learning_rate, weight_decay=t.weight_decay)
