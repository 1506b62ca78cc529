"""CNN14 as an encoder: the network of the infant cry study, without its tags.

Q. Kong et al., "PANNs", TASLP 28, 2020; 80 mels and chunks of 4 s as in A. Gorin et al., 2023,
section 2.1. The last hidden layer, ``fc1``, is part of the embedding, as PANNs transfers it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crykit.nn.cnn14 import DROPOUT_HEAD, conv_blocks, normalise_bands
from crykit.nn.encoders.base import Encoder, mean_max


class Cnn14Encoder(Encoder):
    """79.7 M parameters, 2048-d, a frame every 320 ms.

    Widths double from ``channels`` to 32 times as much.
    """

    name = "cnn14"
    hop_frames, centre_frames, min_frames = 32, 15.5, 32

    def __init__(self, n_mels: int = 80, channels: int = 64, size: int = 2048) -> None:
        super().__init__()
        self.n_mels, self.frame_size, self.embedding_size = n_mels, 32 * channels, size
        self.norm0 = nn.BatchNorm2d(n_mels)
        self.blocks = conv_blocks(tuple(channels * 2**i for i in range(6)))
        self.fc1 = nn.Linear(self.frame_size, size)

    def frames(self, log_mel: Tensor) -> Tensor:
        x = normalise_bands(self.norm0, log_mel[:, 0].transpose(1, 2))
        return self.blocks(x).mean(3).transpose(1, 2)

    def pool(self, frames: Tensor) -> Tensor:
        x = functional.dropout(mean_max(frames), DROPOUT_HEAD, training=self.training)
        return torch.relu(self.fc1(x))
