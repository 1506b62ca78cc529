"""The objectives: SimCLR, BYOL, Hybrid BYOL-S and the supervised control.

Each is a module that takes two views (2, batch, 1, mels, frames) and what its kind needs besides,
and returns ``loss`` and its parts. The engine calls `after_step` once the weights have moved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crykit.nn.encoders import Encoder

Gather = Callable[[Tensor], Tensor]  # (batch, d) of this process to (processes, batch, d), in order
Losses = dict[str, Tensor]


def mlp(sizes: Sequence[int], *, batch_norm: bool = True) -> nn.Sequential:
    """Linear layers with (BatchNorm and) ReLU between them; the last one is plain."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(zip(sizes, sizes[1:], strict=False)):
        if i:
            layers += [nn.BatchNorm1d(inner)] if batch_norm else []
            layers.append(nn.ReLU())
        layers.append(nn.Linear(inner, outer))
    return nn.Sequential(*layers)


def nt_xent(
    one: Tensor, two: Tensor, temperature: float, gather: Gather | None = None, rank: int = 0
) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al., ICML 2020, equation 1).

    Every view is told from all others of the joined batch of all processes; this process takes its
    own views as anchors. With a gather whose backward sums over processes, and gradients averaged
    over them, loss and gradients are those of one process with the joined batch.

    Args:
        one, two: (batch, d) projections of this process; row i of both is one clip.
        gather: None for a single process.
        rank: which of the gathered parts is this process's own.
    """
    one, two = F.normalize(one, dim=1), F.normalize(two, dim=1)
    all_one = gather(one).flatten(0, 1) if gather else one
    all_two = gather(two).flatten(0, 1) if gather else two
    n, total = len(one), len(all_one)
    similarity = torch.cat([one, two]) @ torch.cat([all_one, all_two]).T / temperature
    own = torch.arange(n, device=one.device) + rank * n
    itself = torch.cat([own, own + total])
    partner = torch.cat([own + total, own])
    similarity = similarity.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(similarity, partner)


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of unit vectors, ``2 - 2 cos`` (Grill et al., 2020, equation 2)."""
    cosine = F.cosine_similarity(prediction, target.detach(), dim=1)
    return (2.0 - 2.0 * cosine).mean()


class Objective(nn.Module):
    """An encoder with what its objective puts on it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def after_step(self) -> None:
        """What follows every step of the optimiser."""

    def head(self) -> nn.Module | None:
        """The part beside the encoder that is kept for transfer, if any."""
        return None


class SimClr(Objective):
    """NT-Xent on a projector of three layers, the first of which is kept (Gorin et al., 2.3)."""

    def __init__(
        self,
        encoder: Encoder,
        hidden: int = 2048,
        size: int = 512,
        temperature: float = 0.1,
        *,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(encoder)
        sizes = (encoder.embedding_size, hidden, hidden, size)
        self.projector = mlp(sizes, batch_norm=batch_norm)
        self.temperature, self.batch_norm = temperature, batch_norm
        self.gather: Gather | None = None
        self.rank = 0

    def forward(self, views: Tensor) -> Losses:
        one, two = self.projector(self.encoder(views.flatten(0, 1))).float().chunk(2)
        return {"loss": nt_xent(one, two, self.temperature, self.gather, self.rank)}

    def head(self) -> nn.Module:
        """Layer 1 with its ReLU; its BatchNorm's running statistics are folded into the weights."""
        first = self.projector[0]
        assert isinstance(first, nn.Linear)
        linear = copy.deepcopy(first)
        norm = self.projector[1]
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_var is not None and norm.running_mean is not None
            with torch.no_grad():
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                linear.weight.copy_(first.weight * scale[:, None])
                linear.bias.copy_((first.bias - norm.running_mean) * scale + norm.bias)
        return nn.Sequential(linear, nn.ReLU())


class Byol(Objective):
    """Predict the slow copy's projection of the other view (Grill et al., 2020; BYOL-A)."""

    def __init__(
        self, encoder: Encoder, hidden: int = 4096, size: int = 256, decay: float = 0.99
    ) -> None:
        super().__init__(encoder)
        self.projector = mlp((encoder.embedding_size, hidden, size))
        self.predictor = mlp((size, hidden, size))
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.decay = decay

    def forward(self, views: Tensor) -> Losses:
        return {"loss": self.self_supervised(*self.predictions(views))}

    def predictions(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Online predictions and the target's projections of each view, (batch, size) each."""
        predicted = [self.predictor(self.projector(self.encoder(x))).float() for x in views]
        with torch.no_grad():
            targets = [self.target_projector(self.target_encoder(x)).float() for x in views]
        return predicted, targets

    @staticmethod
    def self_supervised(predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Both ways round, added."""
        return byol_loss(predicted[0], targets[1]) + byol_loss(predicted[1], targets[0])

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the target's weights towards the online ones: an exponential moving average."""
        for slow, fast in (
            (self.target_encoder, self.encoder),
            (self.target_projector, self.projector),
        ):
            for mean, now in zip(slow.parameters(), fast.parameters(), strict=True):
                mean.lerp_(now, 1.0 - self.decay)


class Hybrid(Byol):
    """BYOL whose predictions also meet a fixed feature set (Elbanna et al., 2.2, equation 1).

    Projector and predictor are as wide as the features. ``loss = alpha L_sup + beta L_ss``, with
    L_sup the mean squared error between each view's prediction and the standardised features.
    """

    def __init__(
        self,
        encoder: Encoder,
        features: int,
        hidden: int = 4096,
        alpha: float = 1.0,
        beta: float = 1.0,
        decay: float = 0.99,
    ) -> None:
        super().__init__(encoder, hidden, features, decay)
        self.alpha, self.beta = alpha, beta

    def forward(self, views: Tensor, features: Tensor) -> Losses:
        """``features``: (batch, features), of the chunk that both views show."""
        predicted, targets = self.predictions(views)
        supervised = (F.mse_loss(predicted[0], features) + F.mse_loss(predicted[1], features)) / 2
        self_supervised = self.self_supervised(predicted, targets)
        return {
            "loss": self.alpha * supervised + self.beta * self_supervised,
            "supervised": supervised.detach(),
            "self_supervised": self_supervised.detach(),
        }


class Supervised(Objective):
    """Cross-entropy of a linear classifier on the embedding, on both views: the control."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.embedding_size, classes)

    def forward(self, views: Tensor, labels: Tensor) -> Losses:
        """``labels``: (batch,) class numbers."""
        logits = self.classifier(self.encoder(views.flatten(0, 1))).float()
        twice = torch.cat([labels, labels])
        accuracy = (logits.argmax(1) == twice).float().mean()
        return {"loss": F.cross_entropy(logits, twice), "accuracy": accuracy.detach()}
