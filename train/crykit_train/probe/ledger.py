"""A folder of results that are kept one by one, so that a kill loses the one at work alone."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crykit import __version__
from crykit.errors import InputError, UsageError
from crykit.files import write_aside

RESULTS = "results.json"


def key_of(*facts: object) -> str:
    """A short name for what a result depends on: recipes, digests, words."""
    text = msgspec.json.encode([msgspec.to_builtins(f) for f in facts])
    return hashlib.sha256(text).hexdigest()[:16]


class Ledger:
    """``results.json`` of a folder, beside ``recipe.json`` and ``environment.json``.

    Each cell goes by a key of everything it depends on, so a table that is begun again with more
    rows, or with a model trained anew, keeps what still holds.
    """

    def __init__(
        self, folder: Path, recipe: msgspec.Struct, *, resume: bool = False, leaky: bool = False
    ) -> None:
        """
        Raises:
            UsageError: the folder holds results and ``resume`` is not set, or is stamped otherwise.
            InputError: its results cannot be read, or it cannot be written.
        """
        self.folder, self.leaky = folder, leaky
        self.cells: dict[str, dict[str, Any]] = {}
        file = folder / RESULTS
        if folder.exists() and any(folder.iterdir()) and not resume:
            raise UsageError(f"{folder}: is not empty; add --resume or choose another --out")
        if resume and file.is_file():
            self.cells = _read_cells(file, leaky)
        write_bytes(
            folder / "recipe.json", msgspec.json.format(msgspec.json.encode(recipe), indent=2)
        )
        write_json(folder / "environment.json", environment())

    def get(self, key: str) -> dict[str, Any] | None:
        return self.cells.get(key)

    def put(self, key: str, cell: dict[str, Any]) -> None:
        """Keep a result, on disk at once."""
        self.cells[key] = cell
        write_json(self.folder / RESULTS, {"leaky": self.leaky, "cells": self.cells})


def _read_cells(file: Path, leaky: bool) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(file.read_text())
        stamped, cells = bool(found["leaky"]), dict(found["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); choose another --out") from None
    if stamped != leaky:
        raise UsageError(
            f"{file}: holds results {'with' if stamped else 'without'} --leaky; "
            "choose another --out"
        )
    return cells


def write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Whole or not at all.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); what was there is kept: make room and "
            "go on with --resume"
        ) from None


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {
        "crykit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    for package in ("torch", "scikit-learn", "opensmile"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
