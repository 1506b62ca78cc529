"""A trained encoder on disk, and audio through it.

Every training of an encoder leaves ``encoder.safetensors`` (the tensors of the encoder and of the
head, if it transfers through one) and ``encoder.json`` (which encoder, how its log-mel is
normalised, and what it was trained on). Probes, teachers and the export read them here.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crykit.errors import InputError, UsageError
from crykit.files import write_aside
from crykit.nn.encoders import Encoder, build_encoder
from crykit.nn.logmel import HOP_MS, LogMel

FORMAT = 1
WEIGHTS, RECORD = "encoder.safetensors", "encoder.json"
# The one kind of head: a layer of the projector with its ReLU (Gorin et al., section 2.3).
PROJECTOR_LAYER = "projector_layer1"


@dataclass
class Pretrained:
    """An encoder and what goes with it.

    Attributes:
        mean, std: of the training set's log-mel.
        head: applied to the pooled embedding, (batch, embedding_size) to (batch, size).
        record: as `save_pretrained` writes it.
    """

    encoder: Encoder
    mean: float
    std: float
    head: nn.Module | None
    record: dict[str, Any]

    def __post_init__(self) -> None:
        self.front_end = LogMel(self.encoder.n_mels)

    @property
    def size(self) -> int:
        """Width of what `embed` returns."""
        head = self.record.get("head")
        return int(head["size"]) if self.head is not None and head else self.encoder.embedding_size

    def log_mel(self, samples: Tensor) -> Tensor:
        """(batch, n) at 16 kHz in [-1, 1] to (batch, 1, n_mels, 1 + n // 160)."""
        return self.front_end.to(samples.device)(samples)

    def normalise(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.mean) / self.std

    def embed(self, samples: Tensor) -> Tensor:
        """One embedding of each recording, (batch, n) to (batch, size).

        The encoder is used as it stands: in training mode with dropout and batch statistics.
        """
        pooled = self.encoder(self._input(samples))
        return pooled if self.head is None else self.head(pooled)

    def embed_frames(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Frame embeddings (batch, k, frame_size) and the times of their centres, (k,) in ms."""
        frames = self.encoder.frames(self._input(samples))
        steps = torch.arange(frames.shape[1], device=frames.device)
        encoder = self.encoder
        return frames, (encoder.centre_frames + encoder.hop_frames * steps) * HOP_MS

    def _input(self, samples: Tensor) -> Tensor:
        return self.encoder.pad_to_min(self.normalise(self.log_mel(samples)))


def random_pretrained(name: str, **options: Any) -> Pretrained:
    """Random weights, in evaluation mode, and a log-mel that is left as it is."""
    encoder = build_encoder(name, **options).eval()
    record: dict[str, Any] = {
        "format": FORMAT,
        "encoder": {"name": name, "options": options},
        "log_mel": {"n_mels": encoder.n_mels, "mean": 0.0, "std": 1.0},
        "head": None,
        "objective": "none",
        "stage": "pretrain",
        "leaky": False,
        "training": {},
    }
    return Pretrained(encoder, 0.0, 1.0, None, record)


def save_pretrained(folder: Path, pretrained: Pretrained) -> None:
    """Write the two files, each whole or not at all, the weights first.

    Raises:
        InputError: a weight is not a number.
    """
    parts = {"encoder": pretrained.encoder, "head": pretrained.head}
    tensors = {
        f"{part}.{key}": value
        for part, module in parts.items()
        if module is not None
        for key, value in module.state_dict().items()
    }
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{folder}: {key} holds values that are not numbers; nothing written")
    folder.mkdir(parents=True, exist_ok=True)
    record = pretrained.record | {"format": FORMAT}
    with write_aside(folder / WEIGHTS) as file:
        file.write(save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
    with write_aside(folder / RECORD) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


def load_pretrained(path: Path) -> Pretrained:
    """What `save_pretrained` wrote into a run folder, in evaluation mode.

    Raises:
        InputError: a file is missing or cut short, the record is not of this format, or the
            weights are another encoder's; the message names the tensor.
    """
    path = Path(path)
    record = _read_record(path / RECORD)
    try:
        named, log_mel, head_record = record["encoder"], record["log_mel"], record["head"]
        mean, std = float(log_mel["mean"]), float(log_mel["std"])
        name, options = str(named["name"]), dict(named["options"])
        size = None if head_record is None else int(head_record["size"])
        kind = None if head_record is None else head_record["kind"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path / RECORD}: is no record of an encoder ({error!r})") from None
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise InputError(f"{path / RECORD}: expected a finite mean and std > 0, got {mean}, {std}")
    try:
        encoder = build_encoder(name, **options)
    except UsageError as error:
        raise InputError(f"{path / RECORD}: {error}") from None
    if log_mel.get("n_mels", encoder.n_mels) != encoder.n_mels:
        raise InputError(
            f"{path / RECORD}: {name} hears {encoder.n_mels} mels, the record says "
            f"{log_mel['n_mels']}"
        )
    head: nn.Module | None = None
    if size is not None:
        if kind != PROJECTOR_LAYER:
            raise InputError(f"{path / RECORD}: expected the head {PROJECTOR_LAYER}, got {kind!r}")
        head = nn.Sequential(nn.Linear(encoder.embedding_size, size), nn.ReLU())
    tensors = _read_tensors(path / WEIGHTS)
    _restore(encoder, _under("encoder.", tensors), f"{path / WEIGHTS}: encoder {name}")
    if head is not None:
        _restore(head, _under("head.", tensors), f"{path / WEIGHTS}: head")
        head.eval()
    return Pretrained(encoder.eval(), mean, std, head, record)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; give the folder of a finished encoder training"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train the encoder again") from None
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, got {found}; train the encoder again")
    return record


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train the encoder again") from None


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in tensors:
            raise InputError(f"{what}: {key} is missing; these weights are of another encoder")
        if tensors[key].shape != value.shape:
            raise InputError(
                f"{what}: expected {key} of shape {list(value.shape)}, got "
                f"{list(tensors[key].shape)}; these weights are of another encoder"
            )
    strange = sorted(set(tensors) - set(expected))
    if strange:
        raise InputError(f"{what}: has no {strange[0]}; these weights are of another encoder")
    module.load_state_dict(tensors)
