"""The shipped student as an encoder, so that it can be pre-trained and probed like the others.

It hears two channels where an encoder is given one: the second, the contrast to the noise floor,
is computed here from the log-mel by the front end's own tracker.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crykit.nn.encoders.base import Encoder
from crykit.nn.frontend import (
    LOG_MEL_OFFSET_DB,
    LOG_MEL_SCALE_DB,
    N_MELS,
    LogMelFrontEnd,
)
from crykit.nn.student import FRAME_HOPS, CryStudent, StudentConfig

# Decibels of power in one unit of a natural logarithm.
DB_PER_NEPER = 10.0 / math.log(10.0)


class StudentEncoder(Encoder):
    """`CryStudent` without its head: 128-d, a causal frame every 40 ms.

    The tracker works on levels in decibels, so what normalised the log-mel is undone first:
    ``log_mel_mean`` and ``log_mel_std`` are of the natural logarithm, and of general audio unless
    told. A wrong mean moves the first channel alone, a wrong deviation stretches the contrast.
    """

    name = "student"
    hop_frames, centre_frames, min_frames = FRAME_HOPS, (FRAME_HOPS - 1) / 2, FRAME_HOPS

    def __init__(
        self,
        size: int = StudentConfig().embedding_size,
        log_mel_mean: float = -8.0,
        log_mel_std: float = 4.5,
    ) -> None:
        super().__init__()
        self.n_mels, self.frame_size, self.embedding_size = N_MELS, size, size
        self.log_mel_mean, self.log_mel_std = log_mel_mean, log_mel_std
        self.front_end = LogMelFrontEnd("fft")
        self.student = CryStudent(StudentConfig(embedding_size=size))
        # Its cry probability is no part of an embedding.
        self.student.head.requires_grad_(False)

    def features(self, log_mel: Tensor) -> Tensor:
        """Normalised (batch, 1, 64, t) to what the student hears, (batch, 2, 64, t)."""
        decibels = (log_mel * self.log_mel_std + self.log_mel_mean) * DB_PER_NEPER
        scaled = (decibels + LOG_MEL_OFFSET_DB) / LOG_MEL_SCALE_DB
        return torch.cat([scaled, self.front_end.contrast_of_clip(scaled)], dim=1)

    def frames(self, log_mel: Tensor) -> Tensor:
        t = log_mel.shape[3] // FRAME_HOPS * FRAME_HOPS
        features = self.features(log_mel[..., :t])
        state = self.student.initial_state(features.shape[0])  # `len` would fix the batch at export
        _, embedding, _ = self.student.logits(features, *state)
        return embedding
