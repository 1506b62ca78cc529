"""Trained detectors, from a run folder or from a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.nn.student import CryStudent, StudentConfig
from crykit.runtime.torch import build_student

LEAKY_STAMP = " (LEAKY SPLIT)"  # at the end of a description


def is_leaky(facts: dict[str, Any]) -> bool:
    """Whether a run or a bundle rests on a split in which a group straddles."""
    return bool(facts.get("leaky")) or facts.get("description", "").endswith(LEAKY_STAMP)


def load_detector(path: Path) -> tuple[CryStudent, dict[str, Any]]:
    """The detector of a finished run folder or of a bundle, and what is written of it.

    Raises:
        InputError: neither, or its files do not belong together.
    """
    if (path / "manifest.json").is_file():
        bundle = Bundle.open(path)
        return build_student(bundle), msgspec.to_builtins(bundle.manifest)
    return load_run(path)


def load_run(run: Path) -> tuple[CryStudent, dict[str, Any]]:
    """The trained model of a run folder and what ``model.json`` says of it.

    Raises:
        InputError: the run has not finished, or its files do not belong together.
    """
    try:
        facts = json.loads((run / "model.json").read_text())
        shape = {k: v for k, v in facts["architecture"].items() if k != "kind"}
        model = CryStudent(msgspec.convert(shape, StudentConfig))
        model.load_state_dict(load_file(run / "model.safetensors"))
    except FileNotFoundError as error:
        raise InputError(
            f"{run}: no {Path(error.filename).name}; it should be the folder of a finished "
            "`crykit train detector` run"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{run}: the model cannot be read ({first}); train it again") from None
    return model.eval(), facts
