"""CvT: a convolutional vision transformer of three stages with one block each.

H. Wu et al., "CvT: Introducing Convolutions to Vision Transformers", ICCV 2021, section 3: token
embedding by a strided convolution, and queries, keys and values by depthwise separable ones, keys
and values on half the grid. Widths 64, 256, 512 as in G. Elbanna et al., 2022, section 2.1.3; heads
1, 3, 6 of 64 each as in CvT-13.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from crykit.nn.encoders.base import Encoder, fold_bands
from crykit.nn.frontend import N_MELS

WIDTHS = (64, 256, 512)
HEADS = (1, 3, 6)
HEAD_SIZE = 64
MLP_RATIO = 4


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, mels, t)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _separable(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Depthwise 3 x 3, batch norm, 1 x 1: the convolutional projection, section 3.2."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
    )


class ConvAttention(nn.Module):
    """Multi-head self-attention over all cells of (batch, channels, mels, t)."""

    def __init__(self, channels: int, heads: int, head_size: int = HEAD_SIZE) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_size
        self.query = _separable(channels, inner, 1)
        self.key_value = _separable(channels, 2 * inner, 2)
        self.out = nn.Conv2d(inner, channels, 1)

    def _split(self, x: Tensor) -> Tensor:
        """(batch, heads * size, mels, t) to (batch, heads, cells, size)."""
        batch, inner, mels, t = x.shape
        return x.reshape(batch, self.heads, inner // self.heads, mels * t).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x)
        key, value = self.key_value(x).chunk(2, dim=1)
        attended = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value)
        )
        return self.out(attended.transpose(2, 3).reshape(query.shape))


class Stage(nn.Module):
    """Token embedding and one transformer block, norms first."""

    def __init__(
        self, channels_in: int, channels: int, heads: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2)
        self.embed_norm = ChannelNorm(channels)
        self.attention_norm = ChannelNorm(channels)
        self.attention = ConvAttention(channels, heads)
        self.mlp_norm = ChannelNorm(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, MLP_RATIO * channels, 1),
            nn.GELU(),
            nn.Conv2d(MLP_RATIO * channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_norm(self.embed(x))
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Cvt(Encoder):
    """5.0 M parameters, 2048-d (512 channels by 4 bands), a frame every 160 ms.

    ``channels`` is the first stage's width; the others are 4 and 8 times as wide.
    """

    name = "cvt"
    hop_frames, centre_frames, min_frames = 16, 0.0, 16

    def __init__(self, n_mels: int = N_MELS, channels: int = WIDTHS[0]) -> None:
        super().__init__()
        one, two, three = (channels * width // WIDTHS[0] for width in WIDTHS)
        self.n_mels = n_mels
        self.stages = nn.Sequential(
            Stage(1, one, HEADS[0], kernel=7, stride=4),
            Stage(one, two, HEADS[1], kernel=3, stride=2),
            Stage(two, three, HEADS[2], kernel=3, stride=2),
        )
        self.frame_size = self.embedding_size = three * -(-n_mels // 16)

    def frames(self, log_mel: Tensor) -> Tensor:
        return fold_bands(self.stages(log_mel))
