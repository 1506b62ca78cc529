"""Log-mel spectrograms for the encoders: whole recordings, centred windows.

As BYOL-S (G. Elbanna et al., 2022, section 2): 16 kHz, 25 ms Hann windows every 10 ms, 60 to
7800 Hz. The student's causal front end (`crykit.nn.frontend`) has the same constants; here windows
are centred and the logarithm is natural, as in BYOL-A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from crykit.nn.frontend import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MEL_MAX_HZ,
    MEL_MIN_HZ,
    N_MELS,
    WINDOW_SAMPLES,
    mel_filterbank,
)

# About the mel power of 16-bit rounding noise, 150 / 12 / 32768**2: silence gets no feature of it.
POWER_OFFSET = 1e-8
HOP_MS = 10.0


class LogMel(nn.Module):
    """Samples (batch, n) in [-1, 1] at 16 kHz to (batch, 1, n_mels, 1 + n // 160).

    ``log(P + 1e-8)``, natural. Frame ``t`` is centred on sample ``160 * t``; the ends are mirrored.
    """

    window: Tensor
    mel: Tensor

    def __init__(
        self, n_mels: int = N_MELS, min_hz: float = MEL_MIN_HZ, max_hz: float = MEL_MAX_HZ
    ) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        self.register_buffer("mel", mel_filterbank(n_mels, min_hz, max_hz), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        n_frames = 1 + samples.shape[1] // HOP_SAMPLES
        # Mirroring needs more samples than half a transform.
        missing = FFT_SAMPLES - samples.shape[1]
        if missing > 0:
            samples = functional.pad(samples, (0, missing))
        # Powers span more than bfloat16 resolves, so no autocast here.
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(
                samples.float(),
                FFT_SAMPLES,
                HOP_SAMPLES,
                WINDOW_SAMPLES,
                self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()  # (batch, 257, frames)
            mel = self.mel.T @ power[:, :, :n_frames]
            # `log(mel + 1e-8)`, with the constant taken out: the ONNX optimiser takes an addition
            # of 1e-8 for one of zero and drops it, and then silence has no logarithm.
            log_mel = torch.log(mel * (1.0 / POWER_OFFSET) + 1.0) + math.log(POWER_OFFSET)
        return log_mel[:, None]
