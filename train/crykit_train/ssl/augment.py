"""Views of a batch of log-mels, on the batch's own device: every step is one tensor operation.

BYOL-A's augmentations (Niizumi et al., IJCNN 2021, III.B; Elbanna et al., 2): log-mixup-exp
against a memory of past inputs, random resize crop on a larger canvas, normalisation before and
after. SpecAugment's masks (Park et al., 2019), without its warping, for SimCLR.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crykit_train.ssl.recipes import ViewsRecipe

CUBIC_A = -0.75  # of Keys' kernel, as in torch's bicubic interpolation


def log_mix_exp(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Mix two sounds' energies: ``log((1 - w) exp(x) + w exp(other))``, w in (batch, 1, 1, 1)."""
    return torch.logaddexp(x + torch.log1p(-weight), other + torch.log(weight))


class MixMemory:
    """The last ``size`` inputs, first in first out, float16 on the batch's device."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: Tensor | None = None  # (n, 1, n_mels, frames), the oldest first

    def mix(self, x: Tensor, most: float, generator: torch.Generator) -> Tensor:
        """Each sample with a random past one, that one's weight uniform in (0, ``most``)."""
        if self.kept is None or most <= 0:
            return x
        n = len(x)
        other = torch.randint(len(self.kept), (n,), generator=generator, device=x.device)
        weight = most * torch.rand(n, 1, 1, 1, generator=generator, device=x.device)
        return log_mix_exp(x, self.kept[other].to(x.dtype), weight.clamp(min=1e-6))

    def remember(self, x: Tensor) -> None:
        past = x.detach().half()
        if self.kept is not None:
            past = torch.cat([self.kept, past])
        self.kept = past[-self.size :]


def resize_matrix(start: Tensor, length: Tensor, size: int, canvas: int) -> Tensor:
    """Bicubic interpolation of ``length`` cells from ``start`` on to ``size``, as matrices.

    Args:
        start, length: (batch,) whole numbers.

    Returns:
        (batch, size, canvas); a product with it equals ``interpolate(..., "bicubic",
        align_corners=True)`` of the crop, which repeats the crop's edge cells.
    """
    last = (length - 1)[:, None]
    at = torch.arange(size, device=start.device) * last / max(size - 1, 1)  # (batch, size)
    floor = at.floor()
    t = at - floor
    out = torch.zeros(len(start), size, canvas, device=start.device)
    for tap in range(-1, 3):
        cell = (floor.long() + tap).clamp(min=0).minimum(last.long()) + start[:, None]
        out.scatter_add_(2, cell[:, :, None], _cubic((t - tap).abs())[:, :, None])
    return out


def _cubic(d: Tensor) -> Tensor:
    """Keys' cubic convolution kernel at distances from 0 to 2."""
    a = CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)


def random_boxes(
    n: int,
    shape: tuple[int, int],
    canvas: tuple[int, int],
    frequency: tuple[float, float],
    time: tuple[float, float],
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crops of a canvas: low band, bands, first frame, frames; (n,) each."""
    draws = torch.rand(4, n, generator=generator, device=device)
    sides: list[Tensor] = []
    for cells, most, (low, high), size_draw, place_draw in (
        (shape[0], canvas[0], frequency, draws[0], draws[1]),
        (shape[1], canvas[1], time, draws[2], draws[3]),
    ):
        length = ((low + (high - low) * size_draw) * cells).long().clamp(1, most)
        start = (place_draw * (most - length + 1)).long()
        sides += [start, length]
    return sides[0], sides[1], sides[2], sides[3]


def random_resize_crop(x: Tensor, views: ViewsRecipe, generator: torch.Generator) -> Tensor:
    """A random box of a zero canvas with ``x`` (batch, 1, mels, frames) in its middle, resized.

    As pitch shift and time stretch at once; beyond the input the canvas is zero, which is the
    mean of a normalised log-mel.
    """
    n, _, mels, frames = x.shape
    canvas = int(mels * views.canvas[0]), int(frames * views.canvas[1])
    low, bands, first, length = random_boxes(
        n,
        (mels, frames),
        canvas,
        views.crop_frequency,
        views.crop_time,
        generator,
        x.device,
    )
    # Only the input's cells count, so the canvas itself is never built.
    top, left = (canvas[0] - mels) // 2, (canvas[1] - frames) // 2
    over_bands = resize_matrix(low, bands, mels, canvas[0])[:, :, top : top + mels]
    over_frames = resize_matrix(first, length, frames, canvas[1])[:, :, left : left + frames]
    return (over_bands @ x[:, 0] @ over_frames.transpose(1, 2))[:, None]


def spec_augment(x: Tensor, views: ViewsRecipe, generator: torch.Generator) -> Tensor:
    """Bands and stretches of each sample set to 0, the mean of a normalised log-mel."""
    n, _, mels, frames = x.shape
    keep_bands = _keep(
        n, mels, views.frequency_masks, views.frequency_mask_share, generator, x.device
    )
    keep_frames = _keep(n, frames, views.time_masks, views.time_mask_share, generator, x.device)
    return x * (keep_bands[:, None, :, None] & keep_frames[:, None, None, :])


def _keep(
    n: int, cells: int, masks: int, share: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """(n, cells) bool, False under ``masks`` masks of 0 to ``share * cells`` cells."""
    kept = torch.ones(n, cells, dtype=torch.bool, device=device)
    index = torch.arange(cells, device=device)
    for _ in range(masks):
        draws = torch.rand(2, n, 1, generator=generator, device=device)
        width = (draws[0] * (int(share * cells) + 1)).long()
        start = (draws[1] * (cells - width + 1)).long()
        kept &= (index < start) | (index >= start + width)
    return kept


def standardise(views: Tensor) -> Tensor:
    """All views of a batch to zero mean and unit deviation together (BYOL-A's post-norm)."""
    return (views - views.mean()) / views.std().clamp(min=1e-6)


class Augmenter:
    """Two views of each sample, (2, batch, 1, mels, frames).

    Args:
        views: what is done.
        mean, std: of the corpus, for the pre-normalisation.
    """

    def __init__(self, views: ViewsRecipe, mean: float, std: float) -> None:
        self.views, self.mean, self.std = views, mean, std
        self.memory = MixMemory(views.mixup_memory)

    def __call__(self, chunks: Tensor, generator: torch.Generator) -> Tensor:
        """
        Args:
            chunks: (1 or 2, batch, 1, mels, frames) log-mels; one chunk is seen twice.
            generator: on the chunks' device.
        """
        v = self.views
        normal = (chunks - self.mean) / self.std
        out: list[Tensor] = []
        for x in (normal[0], normal[-1]):
            if v.mixup > 0:
                x = self.memory.mix(x, v.mixup, generator)
            if v.resize_crop:
                x = random_resize_crop(x, v, generator)
            if v.frequency_masks or v.time_masks:
                x = spec_augment(x, v, generator)
            out.append(x)
        if v.mixup > 0:
            self.memory.remember(normal[0])
        both = torch.stack(out)
        return standardise(both) if v.post_normalise else both
