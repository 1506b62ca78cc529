"""Training one probe: a linear layer on an encoder that is frozen, half frozen or free.

Gorin et al. (2023), 2.3: weighted sampling, Adam, the rate halved on a plateau, the best epoch by
validation score. Features are centred and scaled by the statistics of the training clips under the
encoder as it came: an affine map that a linear layer could learn, which lets one grid of learning
rates serve every encoder.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import WeightedRandomSampler

from crykit.errors import FaultFound
from crykit_train.probe.metrics import average_precision, class_scores, macro_auc
from crykit_train.probe.recipes import Precision, ProtocolRecipe
from crykit_train.probe.schedule import HalvingSchedule
from crykit_train.probe.tasks import Task

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Inputs(Protocol):
    """The clips of a task, as a probe takes them."""

    def windows(self, picked: NDArray[np.intp], rng: np.random.Generator) -> Tensor:
        """A batch to learn from, one row a clip."""
        ...

    def whole(self, picked: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Batches of whole clips: positions within ``picked``, and their inputs."""
        ...


@dataclass(frozen=True)
class Embedded:
    """Embeddings computed once: all that a frozen encoder has to say. (clips, size)"""

    values: Tensor

    def windows(self, picked: NDArray[np.intp], rng: np.random.Generator) -> Tensor:
        return self.values[torch.from_numpy(picked)]

    def whole(self, picked: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        yield np.arange(len(picked)), self.values[torch.from_numpy(picked)]


class Probe(nn.Module):
    """Body (an encoder with what is kept of its projector, or nothing) and a linear layer."""

    centre: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module | None, embeddings: Tensor, n_classes: int) -> None:
        """
        Args:
            body: maps an input to (batch, size); None where inputs are embeddings already.
            embeddings: (clips, size) of the training clips, for centre and scale.
        """
        super().__init__()
        self.body = body
        deviation = embeddings.std(0)
        self.register_buffer("centre", embeddings.mean(0))
        # A dead unit stays at zero; dividing by its rounding error would wake it.
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0))
        self.linear = nn.Linear(embeddings.shape[1], n_classes)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, classes) logits."""
        z = x if self.body is None else self.body(x)
        return self.linear((z - self.centre) / self.scale)

    def set_training(self, protocol: str) -> None:
        """What learns: nothing but the layer, also the running statistics, or everything."""
        self.train(protocol == "end-to-end")
        if self.body is None:
            return
        self.body.requires_grad_(protocol == "end-to-end")
        if protocol == "linear+bn":
            for module in self.body.modules():
                if isinstance(module, BATCH_NORMS):
                    module.train()


@dataclass
class Fit:
    """A trained probe at its best epoch."""

    probe: Probe
    validation_score: float
    validation_loss: float
    epoch: int
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def merit(self) -> tuple[float, float]:
        """To be maximised: the score, and of equal ones the lower loss."""
        return round(self.validation_score, 6), -self.validation_loss


def sampling_weights(targets: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """One over the size of each clip's class: drawn so, every class is as frequent."""
    counts = np.bincount(targets, minlength=n_classes)
    return 1.0 / counts[targets]


def fit(
    probe: Probe,
    inputs: Inputs,
    task: Task,
    recipe: ProtocolRecipe,
    *,
    learning_rate: float,
    encoder_learning_rate: float = 0.0,
    seed: int = 0,
    device: torch.device | None = None,
) -> Fit:
    """Train a probe on the task's train fold; validation picks the epoch.

    Args:
        probe: is trained in place and left at its best epoch.
        device: where to; the CPU by default.

    Raises:
        FaultFound: the loss is no longer a number; the message says where.
    """
    device = device or torch.device("cpu")
    probe.to(device)
    train, val = task.indices("train"), task.indices("val")
    targets = task.targets
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 11])
    generator = torch.Generator().manual_seed(seed)
    n_draws = recipe.draws_per_epoch or len(train)
    weights = sampling_weights(targets[train], len(task.classes))
    sampler = WeightedRandomSampler(weights.tolist(), n_draws, generator=generator)
    groups = [{"params": list(probe.linear.parameters()), "lr": learning_rate}]
    if recipe.protocol == "end-to-end" and probe.body is not None:
        body = {"params": list(probe.body.parameters()), "lr": encoder_learning_rate}
        groups.append({**body, "warm_up": True})
    optimiser = torch.optim.Adam(groups)
    schedule = HalvingSchedule(
        optimiser, patience=recipe.halve_after, warm_up_epochs=recipe.warm_up_epochs
    )
    done = Fit(probe, -math.inf, math.inf, -1)
    best: dict[str, Any] = {}
    n_steps = -(-n_draws // recipe.batch)
    for epoch in range(recipe.epochs):
        probe.set_training(recipe.protocol)
        order = train[np.fromiter(sampler, np.int64)]
        losses: list[float] = []
        for k in range(n_steps):
            picked = order[k * recipe.batch : (k + 1) * recipe.batch]
            if recipe.protocol != "linear" and len(picked) < 2 and k:
                continue  # no batch statistics from one clip
            schedule.before_step(epoch + k / n_steps)
            x = inputs.windows(picked, rng).to(device)
            with torch.autocast(device.type, torch.bfloat16, recipe.precision == "bf16-mixed"):
                logits = probe(x)
            loss = F.cross_entropy(logits.float(), torch.from_numpy(targets[picked]).to(device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FaultFound(
                    f"{task.name}: the loss is no number at epoch {epoch + 1}, step {k + 1} "
                    f"(learning rates {learning_rate:g} and {encoder_learning_rate:g}, seed {seed})"
                    "; choose lower learning rates"
                )
            losses.append(value)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        score, loss_val = validate(probe, inputs, task, val, device, recipe.precision)
        done.history.append(
            {
                "epoch": epoch + 1,
                "loss": float(np.mean(losses)),
                "val_loss": loss_val,
                "val_score": score,
                "learning_rate": optimiser.param_groups[0]["lr"],
                "encoder_learning_rate": optimiser.param_groups[-1]["lr"]
                if len(groups) > 1
                else 0.0,
            }
        )
        if (round(score, 6), -loss_val) > done.merit:
            done.validation_score, done.validation_loss, done.epoch = score, loss_val, epoch + 1
            best = copy.deepcopy(probe.state_dict())
        schedule.after_epoch(loss_val)
    probe.load_state_dict(best)
    probe.eval()
    return done


def validate(
    probe: Probe,
    inputs: Inputs,
    task: Task,
    picked: NDArray[np.intp],
    device: torch.device,
    precision: Precision = "32-true",
) -> tuple[float, float]:
    """Score by the task's metric, and the cross-entropy with every class weighing the same."""
    logits = predict(probe, inputs, picked, device, precision)
    targets = task.targets[picked]
    scores = class_scores(logits)
    value = (
        average_precision(targets, scores)
        if task.metric == "average precision"
        else macro_auc(targets, scores, absent_ok=True)
    )
    weights = torch.from_numpy(sampling_weights(targets, len(task.classes)))
    losses = F.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(targets), reduction="none"
    )
    return float(value), float((losses * weights).sum() / weights.sum())


@torch.inference_mode()
def predict(
    probe: Probe,
    inputs: Inputs,
    picked: NDArray[np.intp],
    device: torch.device | None = None,
    precision: Precision = "32-true",
) -> NDArray[np.float32]:
    """Logits of whole clips, (picked, classes)."""
    probe.eval()
    out = np.zeros((len(picked), probe.linear.out_features), np.float32)
    device = device or torch.device("cpu")
    for positions, x in inputs.whole(picked):
        with torch.autocast(device.type, torch.bfloat16, precision == "bf16-mixed"):
            logits = probe(x.to(device))
        out[positions] = logits.float().cpu().numpy()
    return out
