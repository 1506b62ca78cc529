"""Audio that shows a quantiser the ranges it will meet, streamed with the states it will meet.

Calibrating a stateful network on zero states, or on single steps, would leave the ranges of the
states to chance: sequences are streamed through the float network and every input of every chosen
step is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, read_clip, read_manifest
from crykit.errors import InputError
from crykit_export.graphs import ExportGraph

Audio = NDArray[np.float32]

CLIP_SECONDS = 5
N_CRIES = 32
N_OTHERS = 64
QUIET_ROOM_DBFS = -62.0
LEVELS_DBFS = (-50.0, -12.0)
"""Range of the level, in RMS, that each clip is brought to."""
MUTED_SECONDS = 2
MUTED_EVERY = 12
"""One clip in so many is heard with a stretch of digital silence in its middle."""
MAX_STEPS = 1500
"""Of longer sequences every second step is kept, or third ...: neighbours share most of it."""


def calibration_audio(source: Path, *, seed: int = 0) -> list[Audio]:
    """Sequences of 16 kHz audio to calibrate on, silence and a quiet room among them.

    Args:
        source: a manifest, of which only the `train` split is read; or a folder of audio files.
        seed: of the choice of clips, their levels and the noise under them.

    Raises:
        InputError: nothing there to calibrate on.
    """
    rng = np.random.default_rng(seed)
    clips = _from_folder(source) if source.is_dir() else _from_manifest(source, rng)
    heard = [_placed(audio, rng) for audio in clips]
    quiet = _noise(rng, CLIP_SECONDS * 16_000, QUIET_ROOM_DBFS)
    silence = np.zeros(MUTED_SECONDS * 16_000, np.float32)
    # A microphone that is muted and opened again: the widest swings that the features can make.
    muted = [np.concatenate([a, silence, a]) for a in [*heard[::MUTED_EVERY], quiet]]
    return [*heard, *muted, silence]


def describe(source: Path) -> str:
    """Where the calibration audio came from, for the manifest, without a path of this machine."""
    return "a folder of recordings" if source.is_dir() else "the training split of the manifest"


def _from_manifest(path: Path, rng: np.random.Generator) -> list[Audio]:
    usable = [c for c in read_manifest(path) if c.split == "train" and c.event != "unverified"]
    cries = [clip for clip in usable if clip.event == "cry"]
    others = [clip for clip in usable if clip.event != "cry"]
    if not cries or not others:
        raise InputError(
            f"{path}: int8 needs cries and other sounds of the train split to calibrate on; "
            f"it has {len(cries)} and {len(others)}"
        )
    chosen = [*_some(cries, N_CRIES, rng), *_some(others, N_OTHERS, rng)]
    return [read_clip(clip)[: CLIP_SECONDS * 16_000] for clip in chosen]


def _some(clips: list[Clip], n: int, rng: np.random.Generator) -> list[Clip]:
    return [clips[i] for i in sorted(rng.permutation(len(clips))[:n])]


def _from_folder(folder: Path) -> list[Audio]:
    known = {f".{name.lower()}" for name in soundfile.available_formats()} | {".oga", ".mp3"}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in known)[: N_CRIES + N_OTHERS]
    if not files:
        raise InputError(f"{folder}: int8 needs recordings to calibrate on; there are none here")
    clips = [Clip(p, "", p.name, "train", "", "", "", "", {}) for p in files]
    return [read_clip(clip)[: CLIP_SECONDS * 16_000] for clip in clips]


def _placed(audio: Audio, rng: np.random.Generator) -> Audio:
    """The clip at a random level over a faint noise floor, as a microphone would give it."""
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) + 1e-9
    gain = 10.0 ** (rng.uniform(*LEVELS_DBFS) / 20.0) / rms
    floor = _noise(rng, len(audio), rng.uniform(-75.0, -50.0))
    return np.clip(audio * gain + floor, -1.0, 1.0).astype(np.float32)


def _noise(rng: np.random.Generator, n_samples: int, level_dbfs: float) -> Audio:
    """Brownish noise, as of a room, at an RMS level."""
    white = rng.standard_normal(n_samples + 64)
    smooth = np.convolve(white, np.exp(-np.arange(32) / 8.0), mode="same")[32 : 32 + n_samples]
    return (smooth / smooth.std() * 10.0 ** (level_dbfs / 20.0)).astype(np.float32)


@torch.no_grad()
def calibration_steps(
    front_end: ExportGraph, network: ExportGraph, sequences: list[Audio]
) -> Iterator[dict[str, Tensor]]:
    """Inputs of the network, states included, at steps spread evenly over every sequence."""
    n_state = len(network.inputs) - 1
    step_samples = front_end.inputs["samples"].shape[1]
    n_steps = sum(len(audio) // step_samples for audio in sequences)
    kept_every = max(1, -(-n_steps // MAX_STEPS))
    for audio in sequences:
        heard = front_end.example[1:]
        state = network.example[1:]
        for step in range(len(audio) // step_samples):
            block = audio[step * step_samples : (step + 1) * step_samples]
            features, *heard = front_end.module(torch.from_numpy(block)[None], *heard)
            if step % kept_every == 0:
                yield dict(zip(network.inputs, (features, *state), strict=True))
            state = network.module(features, *state)[-n_state:]
