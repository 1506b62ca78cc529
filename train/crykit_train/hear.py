"""The HEAR API over every encoder's run folder and every bundle.

J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", PMLR 176, 2022; the API is
`load_model`, `get_scene_embeddings` and `get_timestamp_embeddings`. Check with
``hear-validator crykit_train.hear -m PATH``.

Timestamps of an encoder are those of G. Elbanna et al., 2022, section 3.5: the recording is cut
into windows (1 s) every 50 ms, each embedded by itself. A bundle is streaming and gives a causal
frame every 40 ms.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from crykit.bundle import Bundle, open_model_bundle
from crykit.errors import UsageError
from crykit.nn.encoders import ENCODERS
from crykit.nn.frontend import HOP_SAMPLES, SAMPLE_RATE_HZ
from crykit.nn.logmel import HOP_MS
from crykit.nn.pretrained import RECORD, Pretrained, load_pretrained, random_pretrained

WINDOW_MS, TIMESTAMP_HOP_MS = 1_000, 50
WINDOWS_AT_ONCE = 128


class HearModel(nn.Module):
    """What HEAR asks of a model; sizes are widths of embeddings."""

    sample_rate = SAMPLE_RATE_HZ
    scene_embedding_size: int
    timestamp_embedding_size: int

    def scenes(self, audio: Tensor) -> Tensor:
        """(batch, n) to (batch, scene_embedding_size)."""
        raise NotImplementedError

    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n) to (batch, k, timestamp_embedding_size), and times in ms (k,)."""
        raise NotImplementedError


class HearEncoder(HearModel):
    """A trained encoder; ``window_ms`` 0 gives its own frames in place of windows."""

    def __init__(self, pretrained: Pretrained, window_ms: int, hop_ms: int) -> None:
        super().__init__()
        self.pretrained, self.window_ms, self.hop_ms = pretrained, window_ms, hop_ms
        self.encoder, self.head = pretrained.encoder, pretrained.head
        self.scene_embedding_size = pretrained.size
        self.timestamp_embedding_size = (
            pretrained.size if window_ms else pretrained.encoder.frame_size
        )

    def scenes(self, audio: Tensor) -> Tensor:
        return self.pretrained.embed(audio)

    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        if not self.window_ms:
            return self.pretrained.embed_frames(audio)
        windows = self._windows(audio)  # (batch, k, n_mels, frames)
        k = windows.shape[1]
        flat = windows.flatten(0, 1)[:, None]
        parts = [
            self._embed(flat[start : start + WINDOWS_AT_ONCE])
            for start in range(0, len(flat), WINDOWS_AT_ONCE)
        ]
        times = torch.arange(k, device=audio.device) * float(self.hop_ms)
        return torch.cat(parts).unflatten(0, (len(audio), k)), times

    def _windows(self, audio: Tensor) -> Tensor:
        """Log-mels of windows centred on every multiple of the hop, silence beyond the ends."""
        half = round(self.window_ms / HOP_MS / 2)
        padded = functional.pad(audio, (half * HOP_SAMPLES, half * HOP_SAMPLES))
        log_mel = self.pretrained.normalise(self.pretrained.log_mel(padded))[:, 0]
        windows = log_mel.unfold(2, 2 * half + 1, round(self.hop_ms / HOP_MS))
        return windows.transpose(1, 2)

    def _embed(self, log_mel: Tensor) -> Tensor:
        pooled = self.encoder(self.encoder.pad_to_min(log_mel))
        return pooled if self.head is None else self.head(pooled)


class HearBundle(HearModel):
    """A bundle through the engine that devices run; scenes are mean and maximum of its frames."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        from crykit.offline import make_listener
        from crykit.runtime import open_runtime

        manifest = bundle.manifest
        self._listener = make_listener(bundle, open_runtime(bundle))
        self._frame_ms = 1000.0 * manifest.frame_samples / manifest.sample_rate_hz
        self.sample_rate = manifest.sample_rate_hz
        self.timestamp_embedding_size = manifest.embedding_size
        self.scene_embedding_size = 2 * manifest.embedding_size

    def scenes(self, audio: Tensor) -> Tensor:
        from crykit.offline import scene_embedding

        frames = self._frames(audio).numpy()
        return torch.stack([torch.from_numpy(scene_embedding(f)) for f in frames]).to(audio.device)

    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        frames = self._frames(audio).to(audio.device)
        steps = torch.arange(frames.shape[1], device=audio.device)
        return frames, (steps + 0.5) * self._frame_ms

    def _frames(self, audio: Tensor) -> Tensor:
        from crykit.offline import frames_of

        rows = audio.detach().cpu().float().numpy()
        return torch.stack([torch.from_numpy(frames_of([row], self._listener)[1]) for row in rows])


def load_model(
    model_file_path: str = "", window_ms: int = WINDOW_MS, hop_ms: int = TIMESTAMP_HOP_MS
) -> HearModel:
    """A model for HEAR.

    Args:
        model_file_path: a run folder of an encoder training, a bundle's folder or name, the name of
            an encoder (random weights), or nothing: the shipped bundle.
        window_ms, hop_ms: of an encoder's timestamps, multiples of 10; a ``window_ms`` of 0 gives
            the encoder's own frames.

    Raises:
        UsageError: a window or hop that cannot be, or no such model.
        InputError: the model's files cannot be read.
    """
    step = round(HOP_MS)
    if window_ms < 0 or hop_ms < step or window_ms % step or hop_ms % step:
        raise UsageError(
            f"timestamps: expected a window and a hop in multiples of {step} ms, got {window_ms} "
            f"and {hop_ms}"
        )
    path = Path(model_file_path)
    if model_file_path and (path / RECORD).is_file():
        return HearEncoder(load_pretrained(path), window_ms, hop_ms).eval()
    if model_file_path in ENCODERS:
        return HearEncoder(random_pretrained(model_file_path), window_ms, hop_ms).eval()
    return HearBundle(open_model_bundle(model_file_path or None)).eval()


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """(sounds, n) in [-1, 1] at ``model.sample_rate`` to (sounds, scene_embedding_size)."""
    _check(audio)
    with torch.inference_mode():
        return model.scenes(audio).float()


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings (sounds, k, timestamp_embedding_size) and their times in ms (sounds, k)."""
    _check(audio)
    with torch.inference_mode():
        embeddings, times = model.timestamps(audio)
        return embeddings.float(), times.float().expand(len(audio), -1).clone()


def _check(audio: Tensor) -> None:
    if audio.ndim != 2 or 0 in audio.shape:
        raise UsageError(f"audio: expected (sounds, samples), got {tuple(audio.shape)}")
