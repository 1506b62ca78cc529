"""Models to look into, each by a name and a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.errors import InputError, UsageError
from crykit.nn.logmel import LogMel
from crykit_train.probe.recipes import ModelRecipe
from crykit_train.probe.sources import Source, open_source
from crykit_train.ssl.recipes import EncoderRecipe

RANDOM, LOG_MEL = "random", "log-mel"


def open_models(
    named: Sequence[tuple[str, str]], encoder: EncoderRecipe, seed: int = 0
) -> dict[str, Source]:
    """Open every model.

    Args:
        named: (name, path): a run folder of `crykit train pretrain` or `adapt`, YAMNet's
            ``.tflite`` file, a folder of WavLM weights as `transformers` saves them, or one of the
            words ``random`` (``encoder`` untrained) and ``log-mel`` (no model: the mean and the
            deviation of each band).

    Raises:
        UsageError: a name twice.
        InputError: nothing that can be opened at a path.
    """
    found: dict[str, Source] = {}
    for name, path in named:
        if name in found:
            raise UsageError(f"--model {name}: is given twice; name each model once")
        found[name] = _open(path, encoder, seed)
        found[name].name = name
    return found


def split_name(text: str) -> tuple[str, str]:
    """``NAME=PATH``, or a word or path that names itself."""
    name, equals, path = text.partition("=")
    if not equals:
        return Path(text).name, text
    if not name or not path:
        raise UsageError(f"--model {text}: expected NAME=PATH")
    return name, path


def _open(path: str, encoder: EncoderRecipe, seed: int) -> Source:
    if path == LOG_MEL:
        return Source(LOG_MEL, "log-mel of 64 bands, mean and deviation", peer=LogMelPeer())
    if path == RANDOM:
        options = {key: int(value) for key, value in encoder.options.items()}
        return open_source(ModelRecipe(run=f"none:{encoder.name}", options=options, seed=seed))
    place = Path(path)
    if place.suffix == ".tflite":
        return open_source(ModelRecipe(run="yamnet", path=path))
    if not place.is_dir():
        raise InputError(
            f"--model {path}: no such folder; give a run folder, yamnet.tflite, a folder of WavLM "
            f"weights, or the word {RANDOM} or {LOG_MEL}"
        )
    if (place / "config.json").is_file() and not (place / "encoder.json").is_file():
        return _open_wavlm(place)
    return open_source(ModelRecipe(run=path))


def _open_wavlm(folder: Path) -> Source:
    from crykit_train.peers.wavlm import Wavlm

    weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin"))
    facts = " ".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in weights)
    return Source("WavLM", f"wavlm {folder} {facts}", peer=WavlmPeer(Wavlm(folder)))


@dataclass
class LogMelPeer:
    """What a log-mel spectrogram tells by itself, as a floor for what was learnt."""

    def __post_init__(self) -> None:
        self._front_end = LogMel()

    def run(self, samples: NDArray[np.float32]) -> tuple[None, NDArray[np.float32]]:
        """Nothing, and mean and deviation over time of each band: (1, 128)."""
        with torch.inference_mode():
            bands = self._front_end(torch.from_numpy(samples)[None])[0, 0]
        return None, torch.cat([bands.mean(1), bands.std(1)])[None].numpy()


@dataclass
class WavlmPeer:
    """WavLM as the probes take a peer."""

    model: Any

    def run(self, samples: NDArray[np.float32]) -> tuple[None, NDArray[np.float32]]:
        """Nothing, and embeddings (frames, size)."""
        return None, np.asarray(self.model.embed(samples), np.float32)
