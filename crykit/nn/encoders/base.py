"""What every encoder offers: log-mel to frame embeddings to one embedding of a recording."""

from __future__ import annotations

from torch import Tensor, nn


def mean_max(frames: Tensor) -> Tensor:
    """Temporal mean plus temporal maximum, (batch, n, size) to (batch, size).

    D. Niizumi et al., "BYOL for Audio", IJCNN 2021, section III.C.
    """
    return frames.mean(1) + frames.amax(1)


class Encoder(nn.Module):
    """Base of the encoders.

    The log-mel that goes in is `crykit.nn.logmel.LogMel`'s with the training set's mean taken off
    and divided by its standard deviation.

    Attributes:
        name: in the registry.
        n_mels: bands of the log-mel.
        frame_size: width of one frame embedding.
        embedding_size: width of the pooled embedding.
        hop_frames: log-mel frames from one frame embedding to the next.
        centre_frames: the log-mel frame at the centre of what the first frame embedding sees.
        min_frames: the shortest log-mel that goes in.
    """

    name: str
    n_mels: int
    frame_size: int
    embedding_size: int
    hop_frames: int
    centre_frames: float
    min_frames: int

    def frames(self, log_mel: Tensor) -> Tensor:
        """(batch, 1, n_mels, t) to (batch, n, frame_size)."""
        raise NotImplementedError

    def pool(self, frames: Tensor) -> Tensor:
        """(batch, n, frame_size) to (batch, embedding_size)."""
        return mean_max(frames)

    def forward(self, log_mel: Tensor) -> Tensor:
        """(batch, 1, n_mels, t) to (batch, embedding_size)."""
        return self.pool(self.frames(log_mel))

    def pad_to_min(self, log_mel: Tensor) -> Tensor:
        """Repeat a log-mel that is shorter than ``min_frames``; leave any other as it is."""
        t = log_mel.shape[3]
        if t >= self.min_frames:
            return log_mel
        return log_mel.repeat(1, 1, 1, -(-self.min_frames // t))[..., : self.min_frames]


def fold_bands(x: Tensor) -> Tensor:
    """(batch, channels, mels, t) to (batch, t, mels * channels)."""
    return x.permute(0, 3, 2, 1).flatten(2)
