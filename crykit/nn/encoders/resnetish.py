"""ResNetish-34: a residual network whose first convolution keeps its resolution.

S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, section
3.2 (no stride in the first convolution); G. Elbanna et al., 2022, section 2.1.1 (34 layers of K. He
et al., CVPR 2016, 2048-d by BYOL-A's temporal pooling).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crykit.nn.encoders.base import Encoder, fold_bands
from crykit.nn.frontend import N_MELS

DEPTHS = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNetish34(Encoder):
    """21.3 M parameters, 2048-d (512 channels by 4 bands), a frame every 160 ms."""

    name = "resnetish34"
    hop_frames, centre_frames, min_frames = 16, 0.0, 16

    def __init__(self, n_mels: int = N_MELS, channels: int = 64) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 7, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        width = channels
        for stage, depth in enumerate(DEPTHS):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                stages.append(BasicBlock(width, channels * 2**stage, stride))
                width = channels * 2**stage
        self.blocks = nn.Sequential(*stages)
        self.frame_size = self.embedding_size = width * -(-n_mels // 16)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def frames(self, log_mel: Tensor) -> Tensor:
        return fold_bands(self.blocks(self.stem(log_mel)))
