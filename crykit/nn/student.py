"""The student: a small causal convolutional network, one frame of output every 40 ms.

Plain convolution, batch normalisation and ReLU throughout, since that is what ONNX Runtime and
XNNPACK fuse, delegate and quantise best. Early layers are full 3 x 3 convolutions and the later
ones depthwise separable: at the top of the network a full convolution costs few weights and is
one well-filled kernel (M. Tan and Q. Le, "EfficientNetV2", ICML 2021, section 3.2).

Every layer with a temporal extent keeps the last frames of its input as state, so that feeding
audio in steps gives what feeding it whole gives.

For export the network can be laid out time first (`lay_time_first`): joining a state to its input
then copies whole rows, and a row of mels fills a kernel better than four frames do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import msgspec
import torch
from torch import Tensor, nn

from crykit.nn.frontend import N_MELS

FRAME_HOPS = 4  # log-mel frames to one output frame: 40 ms, 25 Hz
FRAME_SAMPLES = 640


class StudentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of a `CryStudent`; a recipe's ``[model]``, and part of a bundle's manifest.

    ``blocks`` lists (channels, mel stride, dilation, full) of the two-dimensional layers;
    ``temporal_dilations`` the layers over time that follow them.
    """

    stem_channels: int = 24
    blocks: tuple[tuple[int, int, int, bool], ...] = (
        (32, 1, 1, True),
        (48, 2, 1, True),
        (64, 1, 2, False),
        (64, 1, 2, False),
        (96, 2, 1, False),
        (96, 1, 4, False),
        (128, 2, 1, False),
    )
    embedding_size: int = 128
    temporal_kernel: int = 5
    temporal_dilations: tuple[int, ...] = (1, 2, 4, 8)


class CausalConv(nn.Module):
    """Convolution + batch norm over (batch, channels, mels, frames), causal in time.

    State: the last ``context`` frames of the input, (batch, channels, mels, context). Time first,
    both have mels and frames exchanged.
    """

    time_axis, keeps_input = 3, False

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.context = (kernel[1] - 1) * dilation - (stride[1] - 1)
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride=stride,
            padding=(kernel[0] // 2, 0),
            dilation=(1, dilation),
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.time_axis
        heard = torch.cat([state, x], dim=axis)
        kept = heard.narrow(axis, heard.shape[axis] - self.context, self.context)
        return self.norm(self.conv(heard)), x if self.keeps_input else kept

    def lay_time_first(self, n_frames: int) -> None:
        """Exchange mels and frames in the kernel and in what comes and goes.

        An input as long as the state, ``n_frames``, is the next state and need not be cut.
        """
        self.time_axis, self.keeps_input = 2, n_frames == self.context
        _transpose_kernel(self.conv)


def _transpose_kernel(conv: nn.Conv2d) -> None:
    conv.weight = nn.Parameter(conv.weight.detach().transpose(2, 3).contiguous())
    for name in ("kernel_size", "stride", "padding", "dilation"):
        setattr(conv, name, tuple(reversed(getattr(conv, name))))


class Block(nn.Module):
    """One two-dimensional layer: full 3 x 3, or 3 x 3 depthwise then 1 x 1; residual if it fits."""

    def __init__(
        self, channels_in: int, channels_out: int, mel_stride: int, dilation: int, full: bool
    ) -> None:
        super().__init__()
        middle = channels_out if full else channels_in
        self.temporal = CausalConv(
            channels_in,
            middle,
            (3, 3),
            stride=(mel_stride, 1),
            dilation=dilation,
            groups=1 if full else channels_in,
        )
        self.pointwise = (
            None
            if full
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
            )
        )
        self.residual = mel_stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.temporal(x, state)
        if self.pointwise is not None:
            y = self.pointwise(torch.relu(y))
        return torch.relu(x + y if self.residual else y), state


class TemporalBlock(nn.Module):
    """Residual depthwise separable layer over time alone, (batch, channels, 1, frames)."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.temporal = CausalConv(
            channels, channels, (1, kernel), dilation=dilation, groups=channels
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.temporal(x, state)
        return torch.relu(x + self.pointwise(torch.relu(y))), state


class CryStudent(nn.Module):
    """Features of `LogMelFrontEnd` to a cry probability and an embedding every 40 ms.

    Output frame ``j`` depends on audio up to sample ``640 * (j + 1)`` and no further: there is no
    look-ahead.
    """

    def __init__(self, config: StudentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StudentConfig()
        self.time_first = False
        self.stem = CausalConv(2, config.stem_channels, (5, 8), stride=(2, FRAME_HOPS))
        blocks: list[Block] = []
        channels, mels = config.stem_channels, N_MELS // 2
        self._shapes = [(2, N_MELS)]
        for width, mel_stride, dilation, full in config.blocks:
            blocks.append(Block(channels, width, mel_stride, dilation, full))
            self._shapes.append((channels, mels))
            channels, mels = width, mels // mel_stride
        self.blocks = nn.ModuleList(blocks)
        size = config.embedding_size
        # A kernel as tall as what is left of the mel axis: the whole spectrum to one vector.
        self.collapse = nn.Sequential(
            nn.Conv2d(channels, size, (mels, 1), bias=False), nn.BatchNorm2d(size), nn.ReLU()
        )
        self.temporal = nn.ModuleList(
            TemporalBlock(size, config.temporal_kernel, d) for d in config.temporal_dilations
        )
        self._shapes += [(size, 1)] * len(config.temporal_dilations)
        self.head = nn.Conv2d(size, 1, 1)

    def _stateful(self) -> Iterator[CausalConv]:
        yield self.stem
        for block in (*self.blocks, *self.temporal):
            yield block.temporal  # type: ignore[misc]

    def _contexts(self) -> Iterator[int]:
        return (layer.context for layer in self._stateful())

    def lay_time_first(self, n_frames: int) -> None:
        """Exchange mels and frames in every layer, in place; features go in as they were.

        Args:
            n_frames: log-mel frames of a step, or 0 for clips of any length.
        """
        for layer in self._stateful():
            layer.lay_time_first(n_frames if layer is self.stem else n_frames // FRAME_HOPS)
        _transpose_kernel(cast(nn.Conv2d, self.collapse[0]))
        self.time_first = True

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Zeros, one tensor a stateful layer: (batch, channels, mels, context frames)."""
        return tuple(
            self.head.weight.new_zeros(
                batch, channels, *((context, mels) if self.time_first else (mels, context))
            )
            for (channels, mels), context in zip(self._shapes, self._contexts(), strict=True)
        )

    @property
    def receptive_field_frames(self) -> int:
        """Log-mel frames of the past, its own included, that one output frame can see."""
        stem, *rest = self._contexts()
        return FRAME_HOPS * sum(rest) + stem + FRAME_HOPS

    def logits(self, features: Tensor, *state: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Frame logits (batch, frames), embeddings (batch, frames, size) and the next state."""
        states = iter(state)
        following: list[Tensor] = []
        x = features.transpose(2, 3) if self.time_first else features
        x, after = self.stem(x, next(states))
        x = torch.relu(x)
        following.append(after)
        for block in self.blocks:
            x, after = block(x, next(states))
            following.append(after)
        x = self.collapse(x)
        for block in self.temporal:
            x, after = block(x, next(states))
            following.append(after)
        logits = self.head(x).flatten(1)
        return logits, x.flatten(2).transpose(1, 2), tuple(following)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One or more steps.

        Args:
            features: (batch, 2, 64 mels, frames), frames a multiple of 4.
            state: as `initial_state` or the last call gave it.

        Returns:
            cry probability (batch, frames / 4), embedding (batch, frames / 4, size), next state.
        """
        logits, embedding, following = self.logits(features, *state)
        return (torch.sigmoid(logits), embedding, *following)
