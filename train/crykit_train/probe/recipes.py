"""What `crykit train finetune`, `transfer`, `baseline` and `evaluate --recipe` are told to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from crykit.dataset import Clip
from crykit.errors import UsageError
from crykit_train.probe import tasks
from crykit_train.probe.tasks import Task

Protocol = Literal["linear", "linear+bn", "end-to-end", "logistic"]
Precision = Literal["32-true", "bf16-mixed"]


class TaskRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A labelled question; ``source`` and ``negatives_of`` are of leave_out."""

    name: Literal[
        "cry_detection",
        "leave_out",
        "reasons",
        "speech_words",
        "speech_vs_rest",
        "events",
        "esc_sounds",
        "instruments",
        "speakers",
    ] = "cry_detection"
    source: str = ""
    negatives_of: str = ""
    folds: int = 5
    seed: int = 0

    @property
    def label(self) -> str:
        if self.name == "leave_out":
            return f"leave {self.source} out"
        return self.name.replace("_", " ")


class ModelRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where embeddings come from.

    ``run`` is a run folder, ``none:NAME`` for the encoder NAME with random weights, ``compare`` for
    ComParE 2016, or ``yamnet`` with ``path`` its file. ``options`` shrink a random encoder. With
    ``below_hz`` an encoder hears nothing above that frequency, of any clip, as over a telephone.
    """

    run: str = "none:audiontt2020"
    path: str = ""
    options: dict[str, int] = {}
    seed: int = 0
    below_hz: float = 0.0

    def __post_init__(self) -> None:
        if self.run == "yamnet" and not self.path:
            raise ValueError("run = 'yamnet' needs path, that of yamnet.tflite")


class ProtocolRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a probe is trained (Gorin et al. 2023, 2.3).

    ``logistic`` stands beside the paper's three: a frozen encoder and logistic regression, C by
    validation AUC, which has no seed.
    """

    protocol: Protocol = "linear"
    epochs: int = 50
    repeats: int = 10
    batch: int = 128
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    encoder_learning_rates: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    warm_up_epochs: float = 10.0
    halve_after: int = 3
    # A random piece of each clip in training; validation and test hear whole clips.
    window_s: float = 4.0
    # Clips drawn in an epoch, with replacement; 0 is as many as there are.
    draws_per_epoch: int = 0
    c_grid: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    precision: Precision = "32-true"
    seed: int = 1

    def __post_init__(self) -> None:
        counts = (self.epochs, self.repeats, self.batch, self.halve_after)
        if min(counts) < 1 or self.draws_per_epoch < 0 or self.window_s <= 0:
            raise ValueError("epochs, repeats, batch, halve_after and window_s must be 1 or more")
        if not (self.learning_rates and self.encoder_learning_rates and self.c_grid):
            raise ValueError("a grid must hold one value at least")


class FinetuneRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `crykit train finetune` run."""

    manifest: str = ""
    cache: str = ""
    model: ModelRecipe = ModelRecipe()
    task: TaskRecipe = TaskRecipe()
    probe: ProtocolRecipe = ProtocolRecipe()
    threads: int = 1


def tasks_of(recipe: TaskRecipe, clips: Sequence[Clip], *, leaky: bool = False) -> list[Task]:
    """The checked tasks of a recipe: one, or one a fold of `reasons`."""
    if recipe.name == "leave_out":
        if not recipe.source:
            raise UsageError("task leave_out: name the source in task.source")
        found = [tasks.leave_out(clips, recipe.source, recipe.negatives_of or None)]
    elif recipe.name == "reasons":
        found = [
            tasks.reasons(clips, fold, recipe.folds, recipe.seed) for fold in range(recipe.folds)
        ]
    else:
        found = [getattr(tasks, recipe.name)(clips)]
    return [task.check(leaky=leaky) for task in found]
