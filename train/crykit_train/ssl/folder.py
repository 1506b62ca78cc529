"""The run folder: recipe, environment, checkpoint, history and curves."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning_fabric
import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from crykit import __version__
from crykit.errors import InputError, UsageError
from crykit.files import write_aside
from crykit_train import checkpoint
from crykit_train.curves import draw_curves

CHECKPOINT = "checkpoint.safetensors"
Row = dict[str, float]


class RunFolder:
    """Files of one run; each is written aside and renamed, so that a kill leaves the last one."""

    def __init__(self, path: Path, loss_name: str = "loss") -> None:
        self.path, self._loss_name = path, loss_name

    def open(self, recipe: msgspec.Struct, *, resume: bool) -> None:
        """Begin, or go on; a run that was killed before its first checkpoint begins anew.

        Raises:
            InputError: nothing to resume.
            UsageError: the folder holds another run.
        """
        file = self.path / "recipe.json"
        text = msgspec.json.format(msgspec.json.encode(recipe), indent=2)
        if resume:
            if not file.is_file():
                raise InputError(f"{self.path}: holds no run to resume; leave out --resume")
            if file.read_bytes() != text:
                raise UsageError(
                    f"{self.path}: was begun with another recipe; choose another --out"
                )
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UsageError(f"{self.path}: is not empty; add --resume or choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        with write_aside(file) as handle:
            handle.write(text)
        self._json("environment.json", environment())

    def save(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint, and the history that its state holds.

        Raises:
            InputError: the disk is full or cannot be written; the last checkpoint is kept.
        """
        file = self.path / CHECKPOINT
        try:
            checkpoint.save(file, dict(tensors), state)
            lines = "".join(json.dumps(row) + "\n" for row in state["history"])
            aside = self.path / "history.partial"
            aside.write_text(lines)
            os.replace(aside, self.path / "history.jsonl")
        except (OSError, SafetensorError) as error:
            file.with_suffix(".partial").unlink(missing_ok=True)
            raise InputError(
                f"{file}: cannot be written ({error}); the last checkpoint is kept: make room "
                "on the disk and go on with --resume"
            ) from None

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and state of the last checkpoint; nothing before the first."""
        if not (self.path / CHECKPOINT).is_file():
            return {}, {}
        return checkpoint.load(self.path / CHECKPOINT)

    def finish(self, metrics: dict[str, Any], history: list[Row]) -> None:
        self._json("metrics.json", metrics)
        draw_curves(history, self.path / "curves.png", self._loss_name)

    def _json(self, name: str, content: dict[str, Any]) -> None:
        with write_aside(self.path / name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "crykit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning_fabric": lightning_fabric.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
