"""A toy encoder, and a manifest of made sounds, for the tests of self-supervised training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor, nn

from crykit.nn.encoders import Encoder
from crykit.synth import synthetic_cry

RATE_HZ = 16_000


class ToyEncoder(Encoder):
    """Linear on each frame, mean over frames; no BatchNorm, so that batches may be split."""

    def __init__(self, n_mels: int = 8, size: int = 6) -> None:
        super().__init__()
        self.name, self.n_mels = "toy", n_mels
        self.embedding_size = self.frame_size = size
        self.hop_frames = self.min_frames = 1
        self.layer = nn.Linear(n_mels, size)

    def frames(self, log_mel: Tensor) -> Tensor:
        return self.layer(log_mel[:, 0].transpose(1, 2)).tanh()

    def pool(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=1)


def write_manifest(folder: Path) -> Path:
    """Thirty short clips: cries, music, noise and unverified ones, of three sources."""
    rng = np.random.default_rng(3)
    t = np.arange(int(1.5 * RATE_HZ)) / RATE_HZ
    rows = ["path,event,group,split,source,licence,orig_label"]
    for k in range(30):
        kind = ("cry", "music", "noise", "unverified", "music")[k % 5]
        if kind in ("cry", "unverified"):
            samples = synthetic_cry(1.5, seed=k)
        elif kind == "music":
            samples = 0.3 * np.sin(2 * np.pi * (200 + 40 * k) * t)
        else:
            samples = 0.05 * rng.standard_normal(len(t))
        if k == 7:
            samples = samples[: RATE_HZ // 4]  # shorter than a window
        soundfile.write(folder / f"{k}.flac", np.clip(samples, -1, 1), RATE_HZ)
        source = {"cry": "clinic", "unverified": "app"}.get(kind, "library")
        # The app's first upload and a cry of the clinic are of one baby.
        group = "baby" if k in (0, 3) else f"g{k}"
        split = "val" if k == 29 else "train"
        rows.append(f"{k}.flac,{kind},{group},{split},{source},CC0,{kind}{k % 2}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
