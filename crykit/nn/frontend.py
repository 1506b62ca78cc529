"""Streaming log-mel front end with a noise-floor channel, as one exportable graph.

Constants, in real units: 16 kHz audio, a 25 ms periodic Hann window every 10 ms, a 512-point
transform, 64 triangular HTK mel bands from 60 to 7800 Hz. `torchaudio.transforms.MelSpectrogram`
(``n_fft=512, win_length=400, hop_length=160, center=False, norm=None``) is the reference: its
frame ``t`` equals ours when the audio is led by 56 zeros, the half difference of 512 and 400.

The front end is causal: log-mel frame ``t`` is computed from samples up to ``160 * (t + 1)``.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160  # 10 ms
WINDOW_SAMPLES = 400  # 25 ms
FFT_SAMPLES = 512
N_MELS = 64
MEL_MIN_HZ = 60.0
MEL_MAX_HZ = 7_800.0
TAIL_SAMPLES = WINDOW_SAMPLES - HOP_SAMPLES  # what the next frame still needs of the past: 240
BLOCK_FRAMES = 16  # the tracker is advanced 160 ms at a time, which is one exported step
MAX_BLOCK_FRAMES = 32
STEP_SAMPLES = BLOCK_FRAMES * HOP_SAMPLES

POWER_EPSILON = 1e-10
LOG_MEL_OFFSET_DB = 60.0
LOG_MEL_SCALE_DB = 20.0
FLOOR_TIME_CONSTANT_S = 4.0
_LN_10 = math.log(10.0)
_PER_DECADE = 10.0 / LOG_MEL_SCALE_DB
_AT_SILENCE = (10.0 * math.log10(POWER_EPSILON) + LOG_MEL_OFFSET_DB) / LOG_MEL_SCALE_DB


def block_frames_of(step_samples: int) -> int:
    """The tracker's block for a step: the longest, 32 frames at most, that fills it exactly."""
    n_frames = step_samples // HOP_SAMPLES
    return max(n for n in range(1, MAX_BLOCK_FRAMES + 1) if n_frames % n == 0)


def hz_to_mel(hz: float) -> float:
    """HTK mel scale."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def mel_filterbank(
    n_mels: int = N_MELS, min_hz: float = MEL_MIN_HZ, max_hz: float = MEL_MAX_HZ
) -> Tensor:
    """Triangular mel filters of unit peak, (257 bins, n_mels), as torchaudio's ``norm=None``."""
    mels = torch.linspace(hz_to_mel(min_hz), hz_to_mel(max_hz), n_mels + 2).double()
    edges_hz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins_hz = torch.arange(FFT_SAMPLES // 2 + 1).double() * SAMPLE_RATE_HZ / FFT_SAMPLES
    rising = (bins_hz[:, None] - edges_hz[None, :-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[None, 2:] - bins_hz[:, None]) / (edges_hz[2:] - edges_hz[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0).float()


class LogMelFrontEnd(nn.Module):
    """Waveform to ``features`` of shape (batch, 2, 64 mels, frames), streaming and stateful.

    Channel 0 is the log-mel ``(10 log10(P + 1e-10) + 60) / 20``; channel 1 is the log-mel minus a
    running estimate of the noise floor in its band, so that the network sees contrast however loud
    the room is.

    The floor is the exponentially weighted *harmonic mean* of the band's amplitude over about
    4 s. Quiet frames dominate a harmonic mean, so it follows the floor and not the cry, as the
    minimum-statistics trackers do (R. Martin, IEEE TSAP 9(5), 2001); unlike a minimum it is linear
    in ``1 / amplitude``, so a block of frames is one small matrix product and the streaming result
    is exact. ``floor_weight`` corrects the start, when little has been heard.

    A step costs more in calls than in arithmetic, so operators are few: products in place of
    powers, one logarithm of a quotient in place of two, the scale of the logarithm in the filters.

    ``dft`` chooses how the transform is computed, with the same result to rounding: ``"matmul"``
    folds the window's symmetry into two products of 200 rows (fastest in ONNX Runtime), ``"fft"``
    calls the runtime's own FFT (smallest, fastest in ExecuTorch).

    ``block_frames`` is how many frames the tracker takes at once; any gives the same result.
    """

    # The buffers; those of the transform that is not used are absent.
    mel: Tensor
    cosine: Tensor
    sine: Tensor
    window: Tensor
    floor_kernel: Tensor
    floor_fade: Tensor
    floor_gain: Tensor
    floor_rate: float

    def __init__(self, dft: str = "matmul", block_frames: int = BLOCK_FRAMES) -> None:
        super().__init__()
        self.block_frames = block_frames
        if dft not in ("matmul", "fft"):
            raise ValueError(f"dft: expected 'matmul' or 'fft', got {dft!r}")
        self.dft = dft
        filters = mel_filterbank()
        # No mel weight lies above bin 249 (7.8 kHz), so those bins are never computed.
        self.n_bins = int(filters.sum(1).nonzero().max()) + 1
        # `mel + 1e-10`, divided by that constant: the ONNX optimiser takes an addition of 1e-10 for
        # one of zero and drops it, and then digital silence has no logarithm.
        scaled = filters[: self.n_bins] / POWER_EPSILON
        self.register_buffer("mel", scaled, persistent=False)
        n = torch.arange(WINDOW_SAMPLES).double()
        window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / WINDOW_SAMPLES)
        if dft == "matmul":
            # About sample 200 the periodic window is even: w[200 + k] == w[200 - k]. So the cosine
            # part needs only x[200 + k] + x[200 - k] and the sine part only their difference.
            half = WINDOW_SAMPLES // 2
            k = torch.arange(half).double()
            angle = 2 * math.pi * k[:, None] * torch.arange(self.n_bins).double() / FFT_SAMPLES
            weight = window[half:, None].clone()
            weight[0] *= 0.5  # the centre sample is its own mirror image, and is added to itself
            cosine, sine = (weight * angle.cos()).float(), (weight * angle.sin()).float()
            self.register_buffer("cosine", cosine, persistent=False)
            self.register_buffer("sine", sine, persistent=False)
        else:
            self.register_buffer("window", window.float(), persistent=False)
        self.floor_rate = HOP_SAMPLES / SAMPLE_RATE_HZ / FLOOR_TIME_CONSTANT_S
        decay = math.exp(-self.floor_rate)
        age = torch.arange(block_frames)[None, :] - torch.arange(block_frames)[:, None]
        kernel = torch.where(age >= 0, (1 - decay) * decay ** age.double(), 0.0)
        fade = decay ** torch.arange(1, block_frames + 1).double()
        # The last row is for what came before the block.
        kernel = torch.cat([kernel, fade[None]])
        self.register_buffer("floor_kernel", kernel.float(), persistent=False)
        self.register_buffer("floor_fade", fade.float()[None], persistent=False)
        # The weights of a block that starts from nothing: 1 - decay ** n.
        self.register_buffer("floor_gain", (1 - fade).float()[None], persistent=False)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros: ``tail`` (batch, 240), ``floor_sum`` (batch, 64), ``floor_weight`` (batch, 1)."""
        like = self.mel
        return (
            like.new_zeros(batch, TAIL_SAMPLES),
            like.new_zeros(batch, N_MELS),
            like.new_zeros(batch, 1),
        )

    def forward(
        self, samples: Tensor, tail: Tensor, floor_sum: Tensor, floor_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One or more steps.

        Args:
            samples: (batch, n) audio in [-1, 1]; n in whole blocks, of 2560 samples (160 ms).
            tail, floor_sum, floor_weight: the state, as `initial_state` or the last call gave it.

        Returns:
            features (batch, 2, 64, n / 160), and the next state.
        """
        signal = torch.cat([tail, samples], dim=1)
        log_mel = self.log_mel(signal)
        contrast, floor_sum, floor_weight = self.contrast(log_mel, floor_sum, floor_weight)
        features = torch.cat([log_mel, contrast], dim=1)
        return features, signal[:, -TAIL_SAMPLES:], floor_sum, floor_weight

    def whole(self, samples: Tensor) -> Tensor:
        """A whole clip from zero state, of any length, in as many operators as a short one.

        Args:
            samples: (batch, n), n a multiple of 160.

        Returns:
            features (batch, 2, 64, n / 160), as `forward` gives them.
        """
        log_mel = self.log_mel(functional.pad(samples, (TAIL_SAMPLES, 0)))
        return torch.cat([log_mel, self.contrast_of_clip(log_mel)], dim=1)

    def contrast(
        self, log_mel: Tensor, floor_sum: Tensor, floor_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled log-mel (batch, 1, 64, frames) minus the running noise floor, and the next state.

        ``frames`` is a multiple of ``block_frames``.
        """
        contrasts: list[Tensor] = []
        for start in range(0, log_mel.shape[3], self.block_frames):
            block = log_mel[:, :, :, start : start + self.block_frames]
            heard = torch.cat([_inverse(block), floor_sum[:, None, :, None]], dim=3)
            sums = heard @ self.floor_kernel
            weights = self.floor_gain + floor_weight * self.floor_fade
            contrasts.append(block + _log10(sums / weights[:, None, None]))
            floor_sum, floor_weight = sums[:, 0, :, -1], weights[:, -1:]
        contrast = contrasts[0] if len(contrasts) == 1 else torch.cat(contrasts, dim=3)
        return contrast, floor_sum, floor_weight

    def contrast_of_clip(self, log_mel: Tensor) -> Tensor:
        """`contrast` of (batch, 1, 64, frames) from zero state, for any number of frames.

        Each block's own sums are one product; what the blocks before it leave is another, with a
        kernel of blocks by blocks: its size grows with the square of the length, 16 kB at 10 s and
        0.6 MB at a minute.
        """
        frames, block = log_mel.shape[3], self.block_frames
        # Not `-frames % block`: ExecuTorch takes that as C does, for a negative number.
        missing = (block - frames % block) % block
        inverse = functional.pad(_inverse(log_mel), (0, missing)).unflatten(3, (-1, block))
        sums = inverse @ self.floor_kernel[:-1]  # (batch, 1, 64, blocks, block)
        totals = sums[..., -1]
        index = torch.arange(totals.shape[3], device=log_mel.device)
        age = index[None, :] - index[:, None] - 1
        fades = torch.exp(-self.floor_rate * block * age.clamp(min=0)).to(totals.dtype)
        before = totals @ torch.where(age >= 0, fades, 0.0)
        sums = (sums + before[..., None] * self.floor_fade[0]).flatten(3)[..., :frames]
        heard = torch.arange(1, frames + 1, device=log_mel.device).to(sums.dtype)
        return log_mel + _log10(sums / -torch.expm1(-self.floor_rate * heard))

    def log_mel(self, signal: Tensor) -> Tensor:
        """(batch, 240 + 160 frames) samples to (batch, 1, 64, frames) of scaled log-mel."""
        frames = self._frames(signal)
        if self.dft == "fft":
            spectrum = torch.fft.rfft(frames * self.window, n=FFT_SAMPLES)
            real, imaginary = spectrum.real, spectrum.imag
        else:
            half = WINDOW_SAMPLES // 2
            right = frames[..., half:]
            left = frames[..., 1 : half + 1].flip(3)
            real = (right + left) @ self.cosine
            imaginary = (right - left) @ self.sine
        power = (real * real + imaginary * imaginary)[..., : self.n_bins]
        # (10 log10(P + 1e-10) + 60) / 20
        log_mel = _log10(power @ self.mel + 1.0) * _PER_DECADE + _AT_SILENCE
        return log_mel.transpose(2, 3)

    @staticmethod
    def _frames(signal: Tensor) -> Tensor:
        """(batch, 240 + 160 frames) to overlapping windows (batch, 1, frames, 400).

        Five shifted views of 80 samples side by side: plain slices, which every runtime has, in
        place of `unfold`, which they export as a gather.
        """
        quantum = math.gcd(WINDOW_SAMPLES, HOP_SAMPLES)  # 80
        stride = HOP_SAMPLES // quantum
        cells = signal.reshape(signal.shape[0], 1, -1, quantum)
        n_frames = (signal.shape[1] - TAIL_SAMPLES) // HOP_SAMPLES
        views = [
            cells[:, :, k : k + stride * (n_frames - 1) + 1 : stride]
            for k in range(WINDOW_SAMPLES // quantum)
        ]
        return torch.cat(views, dim=3)


def _inverse(log_mel: Tensor) -> Tensor:
    """1 / amplitude: one unit of log-mel is 20 dB, a factor of ten."""
    return torch.exp(log_mel * -_LN_10)


def _log10(x: Tensor) -> Tensor:
    return torch.log(x) * (1.0 / _LN_10)
