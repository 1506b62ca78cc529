"""CLSTM: two convolutions, one bidirectional LSTM and one fully connected layer.

G. Elbanna et al., 2022, section 2.1.2, after V. Passricha and R. Aggarwal, 2020. The paper does not
say how the LSTM's outputs become one vector; here, as for the other encoders, by BYOL-A's mean and
maximum over time (the authors' code keeps the last step).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crykit.nn.encoders.base import Encoder, fold_bands
from crykit.nn.frontend import N_MELS


class Clstm(Encoder):
    """18.6 M parameters, 1024-d, a frame every 40 ms. Convolutions have 9 x 9 and 4 x 3 kernels."""

    name = "clstm"
    # The first convolution drops six frames, three of them at the start.
    hop_frames, centre_frames, min_frames = 4, 4.5, 10

    def __init__(
        self, n_mels: int = N_MELS, channels: int = 256, hidden: int = 512, size: int = 1024
    ) -> None:
        super().__init__()
        self.n_mels, self.frame_size, self.embedding_size = n_mels, size, size
        self.conv = nn.Sequential(
            nn.Conv2d(1, channels, 9, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, channels, (4, 3), padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        bands = ((n_mels - 6) // 2 - 1) // 2
        self.lstm = nn.LSTM(bands * channels, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, size)

    def frames(self, log_mel: Tensor) -> Tensor:
        x, _ = self.lstm(fold_bands(self.conv(log_mel)))
        return torch.relu(self.fc(x))
