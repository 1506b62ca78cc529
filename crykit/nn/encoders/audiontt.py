"""The encoders of BYOL-A: three convolution blocks (2021), and two with a concatenation (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crykit.nn.encoders.base import Encoder, fold_bands
from crykit.nn.frontend import N_MELS

DROPOUT = 0.3


def _conv_blocks(n_blocks: int, channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU and 2 x 2 maximum, ``n_blocks`` times."""
    layers: list[nn.Module] = []
    for i in range(n_blocks):
        layers += [
            nn.Conv2d(channels if i else 1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers)


def _mlp(size_in: int, size: int) -> nn.Sequential:
    """Applied to each frame by itself."""
    return nn.Sequential(
        nn.Linear(size_in, size), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(size, size), nn.ReLU()
    )


class AudioNtt2020(Encoder):
    """BYOL-A's network: 5.3 M parameters, 2048-d, a frame every 80 ms.

    D. Niizumi et al., "BYOL for Audio", IJCNN 2021, table II; the default encoder of BYOL-S.
    """

    name = "audiontt2020"
    hop_frames, centre_frames, min_frames = 8, 3.5, 8

    def __init__(self, n_mels: int = N_MELS, channels: int = 64, size: int = 2048) -> None:
        super().__init__()
        self.n_mels, self.frame_size, self.embedding_size = n_mels, size, size
        self.features = _conv_blocks(3, channels)
        self.fc = _mlp(n_mels // 8 * channels, size)

    def frames(self, log_mel: Tensor) -> Tensor:
        return self.fc(fold_bands(self.features(log_mel)))


class AudioNtt2020TwoBlocks(Encoder):
    """The two-block network of BYOL-A's second version: 6.3 M parameters, 3072-d, 40 ms a frame.

    Its embedding is the flattened local features (1024) beside the network's global ones (2048).
    D. Niizumi et al., "BYOL for Audio: Exploring Pre-trained General-purpose Audio
    Representations", TASLP 31, 2023, section III.C; M. Ogg, 2025, section 2.2.
    """

    name = "audiontt2020-2block"
    hop_frames, centre_frames, min_frames = 4, 1.5, 4

    def __init__(self, n_mels: int = N_MELS, channels: int = 64, size: int = 2048) -> None:
        super().__init__()
        local = n_mels // 4 * channels
        self.n_mels = n_mels
        self.frame_size = self.embedding_size = local + size
        self.features = _conv_blocks(2, channels)
        self.fc = _mlp(local, size)

    def frames(self, log_mel: Tensor) -> Tensor:
        x = fold_bands(self.features(log_mel))
        return torch.cat([x, self.fc(x)], dim=2)
