"""Learning rates of supervised training: halved on a plateau, the encoder's warmed up from zero."""

from __future__ import annotations

import math

import torch


class HalvingSchedule:
    """Gorin et al. (2023), 2.3.

    Every rate is halved once the validation loss has not improved for ``patience`` epochs, and the
    count begins anew. The encoder's is moreover raised linearly from 0 to its target over the first
    ``warm_up_epochs``, step by step; parameter groups say so by ``warm_up=True``.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        *,
        patience: int = 3,
        factor: float = 0.5,
        warm_up_epochs: float = 0.0,
    ) -> None:
        self.optimiser, self.patience, self.factor = optimiser, patience, factor
        self.warm_up_epochs = warm_up_epochs
        self.targets = [float(group["lr"]) for group in optimiser.param_groups]
        self.scale, self.best, self.waited = 1.0, math.inf, 0

    def before_step(self, epochs_done: float) -> None:
        """Set the rates of the step that begins after so many epochs, fractions included."""
        warm = min(1.0, epochs_done / self.warm_up_epochs) if self.warm_up_epochs > 0 else 1.0
        for group, target in zip(self.optimiser.param_groups, self.targets, strict=True):
            group["lr"] = target * self.scale * (warm if group.get("warm_up") else 1.0)

    def after_epoch(self, validation_loss: float) -> None:
        """Count an epoch, and halve where there was no progress for long enough."""
        if validation_loss < self.best:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.scale *= self.factor
            self.waited = 0
