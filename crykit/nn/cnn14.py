"""CNN14, the full-precision yardstick: what a general audio tagger costs in the student's place.

Q. Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
Recognition", IEEE/ACM TASLP 28, 2020, table 1. The architecture alone: used with random weights it
has a cost and no accuracy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crykit.nn.frontend import N_MELS, LogMelFrontEnd

WIDTHS = (64, 128, 256, 512, 1024, 2048)
AUDIOSET_CLASSES = 527
DROPOUT_BLOCK, DROPOUT_HEAD = 0.2, 0.5
WINDOW_SAMPLES = 16_000  # 1 s: 100 log-mel frames


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and ReLU, then average pooling."""

    def __init__(self, channels_in: int, channels_out: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        if self.pool > 1:
            x = functional.avg_pool2d(x, self.pool)
        return functional.dropout(x, DROPOUT_BLOCK, training=self.training)


def conv_blocks(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    """The six blocks, (batch, 1, frames, mels) to (batch, widths[-1], frames / 32, mels / 32)."""
    inputs = (1, *widths[:-1])
    last = len(widths) - 1
    return nn.Sequential(
        *(
            ConvBlock(a, b, pool=1 if i == last else 2)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
    )


def normalise_bands(norm: nn.BatchNorm2d, log_mel: Tensor) -> Tensor:
    """Batch norm over the mel axis, as each band has a mean of its own.

    (batch, frames, mels) to (batch, 1, frames, mels).
    """
    return norm(log_mel.transpose(1, 2).unsqueeze(3)).permute(0, 3, 2, 1)


class Cnn14(nn.Module):
    """Log-mel (batch, frames, mels) to tag probabilities (batch, classes), 80 M parameters.

    Five poolings by two: at least 32 frames and 32 mels go in.
    """

    def __init__(self, n_mels: int = N_MELS, n_classes: int = AUDIOSET_CLASSES) -> None:
        super().__init__()
        self.norm0 = nn.BatchNorm2d(n_mels)
        self.blocks = conv_blocks()
        self.fc1 = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.fc_audioset = nn.Linear(WIDTHS[-1], n_classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = normalise_bands(self.norm0, log_mel)
        x = self.blocks(x).mean(3)  # (batch, 2048, frames / 32)
        x = x.amax(2) + x.mean(2)
        x = functional.dropout(x, DROPOUT_HEAD, training=self.training)
        x = functional.dropout(torch.relu(self.fc1(x)), DROPOUT_HEAD, training=self.training)
        return torch.sigmoid(self.fc_audioset(x))


class WaveformCnn14(nn.Module):
    """One second of audio, (batch, 240 + 16000) samples led by the past 15 ms, to tags.

    It shares the student's log-mel front end, so that a comparison is of networks alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.front_end = LogMelFrontEnd("matmul")
        self.network = Cnn14()

    def forward(self, samples: Tensor) -> Tensor:
        return self.network(self.front_end.log_mel(samples)[:, 0].transpose(1, 2))
