"""Ogg's transfer protocol: a linear layer on saved embeddings, on any manifest.

M. Ogg, "Self-supervised convolutional audio models are flexible acoustic feature learners" (2025),
II.C: one embedding a file, its mean over time; 50 epochs of Adam at 1e-4, cross-entropy with class
weights, the rate lowered after five epochs without progress on the validation loss, the best model
on validation measured on test. The batch and by how much the rate falls are not told there: 64, and
a tenth. Accuracy is what the paper reports; balanced accuracy and AUC stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from crykit.dataset import Clip, read_manifest
from crykit.errors import FaultFound
from crykit_train.probe.ledger import Ledger, key_of
from crykit_train.probe.metrics import class_scores
from crykit_train.probe.outcome import Outcome, pooled
from crykit_train.probe.recipes import ModelRecipe, TaskRecipe, tasks_of
from crykit_train.probe.sources import ClipBank, heard_sources, open_source
from crykit_train.probe.tasks import Task

Tell = Callable[[str], None]


class TransferPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimisation, as the paper has it."""

    epochs: int = 50
    learning_rate: float = 1e-4
    batch: int = 64
    patience: int = 5
    factor: float = 0.1
    repeats: int = 1
    seed: int = 1


class NamedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row: what to call it, and the model."""

    label: str
    model: ModelRecipe = ModelRecipe()


class TransferRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `crykit train transfer` run: every model on every task."""

    manifest: str = ""
    cache: str = ""
    rows: tuple[NamedModel, ...] = (NamedModel("random"),)
    tasks: tuple[TaskRecipe, ...] = (TaskRecipe(),)
    plan: TransferPlan = TransferPlan()
    threads: int = 1


def class_weights(targets: NDArray[np.int64], n_classes: int) -> Tensor:
    """Clips over (classes times clips of the class), (classes,): every class weighs the same."""
    counts = np.bincount(targets, minlength=n_classes)
    return torch.from_numpy(len(targets) / (n_classes * np.maximum(counts, 1))).float()


def transfer_probe(embeddings: Tensor, task: Task, plan: TransferPlan, seed: int) -> nn.Linear:
    """Train the layer on the train fold; it is left at its best validation loss.

    Args:
        embeddings: (clips, size) of the task's clips.

    Raises:
        FaultFound: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    targets = torch.from_numpy(task.targets)
    train, val = (torch.from_numpy(task.indices(f)) for f in ("train", "val"))
    layer = nn.Linear(embeddings.shape[1], len(task.classes))
    weights = class_weights(task.targets[task.indices("train")], len(task.classes))
    optimiser = torch.optim.Adam(layer.parameters(), lr=plan.learning_rate)
    # PyTorch waits for patience + 1 bad epochs.
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=plan.factor, patience=plan.patience - 1, threshold=0.0
    )
    best, best_loss = {k: v.clone() for k, v in layer.state_dict().items()}, math.inf
    for epoch in range(plan.epochs):
        for picked in train[torch.randperm(len(train))].split(plan.batch):
            loss = F.cross_entropy(layer(embeddings[picked]), targets[picked], weights)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        with torch.inference_mode():
            held = float(F.cross_entropy(layer(embeddings[val]), targets[val], weights))
        if not math.isfinite(held):
            raise FaultFound(
                f"{task.name}: the validation loss is no number at epoch {epoch + 1}; lower "
                "plan.learning_rate"
            )
        if held < best_loss:
            best, best_loss = {k: v.clone() for k, v in layer.state_dict().items()}, held
        schedule.step(held)
    layer.load_state_dict(best)
    return layer


def transfer(embeddings: Tensor, task: Task, plan: TransferPlan) -> Outcome:
    """Test scores of every repeat."""
    test = task.indices("test")
    scores: list[NDArray[np.float64]] = []
    for repeat in range(plan.repeats):
        layer = transfer_probe(embeddings, task, plan, plan.seed + repeat)
        with torch.inference_mode():
            logits = layer(embeddings[torch.from_numpy(test)]).numpy()
        scores.append(class_scores(logits))
    groups = [task.groups[i] for i in test]
    return Outcome(task, task.targets[test], groups, np.array(scores))


def accuracies(outcome: Outcome) -> dict[str, float]:
    """Share of clips answered rightly, and its mean over classes; both over the repeats."""
    right = outcome.scores.argmax(axis=2) == outcome.targets
    classes = [right[:, outcome.targets == k].mean() for k in np.unique(outcome.targets)]
    return {
        "accuracy": round(float(right.mean()), 4),
        "balanced_accuracy": round(float(np.mean(classes)), 4),
    }


def run_transfer(
    recipe: TransferRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Every model on every task, also in ``results.json`` of the folder.

    Raises:
        InputError: the manifest, a task it cannot answer, or a run that holds no encoder.
    """
    torch.set_num_threads(recipe.threads)
    clips = read_manifest(manifest, leaky=leaky)
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    asked = [(t, tasks_of(t, clips, leaky=leaky)) for t in recipe.tasks]
    bank = ClipBank(_union([task for _, folds in asked for task in folds]), _path(recipe.cache))
    found: dict[str, Any] = {"leaky": leaky}
    for row in recipe.rows:
        source = open_source(row.model)
        for task_recipe, folds in asked:
            key = key_of(source.digest, task_recipe, recipe.plan)
            cell = ledger.get(key)
            if cell is None:
                if tell:
                    tell(f"{row.label}: {task_recipe.label}")
                embeddings = bank.embeddings(source)
                outcome = pooled(
                    [
                        transfer(embeddings[torch.from_numpy(bank.rows(t.clips))], t, recipe.plan)
                        for t in folds
                    ]
                )
                cell = {"row": row.label, "task": task_recipe.label, **accuracies(outcome)}
                cell |= outcome.summary()
                cell["heard"] = sorted(heard_sources(source.record))
                ledger.put(key, cell)
            found.setdefault(row.label, {})[task_recipe.label] = cell
    return found


def _union(tasks: list[Task]) -> list[Clip]:
    return list({clip.path: clip for task in tasks for clip in task.clips}.values())


def _path(text: str) -> Path | None:
    return Path(text) if text else None
