"""Test scores of a model on a task, and what a table says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crykit_train.probe.metrics import summary
from crykit_train.probe.tasks import Task

if TYPE_CHECKING:
    from crykit_train.probe.training import Fit


@dataclass
class Outcome:
    """Test scores of every repeat, (repeats, clips, classes), and what they belong to.

    Attributes:
        chosen: what the search chose, one entry a fold.
        fits: every training run with its curve.
        best: the trained probe with the best validation, where there is one.
    """

    task: Task
    targets: NDArray[np.int64]
    groups: list[str]
    scores: NDArray[np.float64]
    chosen: list[dict[str, Any]] = field(default_factory=list)
    fits: list[dict[str, Any]] = field(default_factory=list)
    best: Fit | None = None

    def summary(self, draws: int = 1000) -> dict[str, Any]:
        """Mean, standard error and group interval."""
        task = self.task
        return {
            **summary(task.metric, task.classes, self.targets, self.scores, self.groups, draws),
            "chosen": self.chosen,
        }

    def stored(self) -> dict[str, Any]:
        """For a results file; the trained probe itself is not in it."""
        return {
            "targets": self.targets.tolist(),
            "scores": self.scores.tolist(),
            "chosen": self.chosen,
            "fits": self.fits,
        }

    @staticmethod
    def restored(task: Task, kept: dict[str, Any]) -> Outcome:
        """What `stored` gave, of the same task."""
        return Outcome(
            task,
            np.array(kept["targets"], np.int64),
            [task.groups[i] for i in task.indices("test")],
            np.array(kept["scores"], np.float64),
            kept["chosen"],
            kept["fits"],
        )


def pooled(outcomes: Sequence[Outcome]) -> Outcome:
    """The folds' test clips one after the other: every clip is scored once a repeat."""
    fits = [o.best for o in outcomes if o.best]
    return Outcome(
        outcomes[0].task,
        np.concatenate([o.targets for o in outcomes]),
        [g for o in outcomes for g in o.groups],
        np.concatenate([o.scores for o in outcomes], axis=1),
        [c for o in outcomes for c in o.chosen],
        [f for o in outcomes for f in o.fits],
        max(fits, key=lambda f: f.merit) if fits else None,
    )
