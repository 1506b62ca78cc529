"""Which evaluation a recipe asks for: its ``kind``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from crykit.errors import UsageError
from crykit_train.probe.subsets import SubsetsRecipe, run_subsets
from crykit_train.probe.table import TableRecipe, run_table
from crykit_train.probe.timestamps import TimestampsRecipe, run_timestamps
from crykit_train.recipe import load_recipe

KINDS: dict[str, tuple[type[msgspec.Struct], Callable[..., dict[str, Any]]]] = {
    "table": (TableRecipe, run_table),
    "subsets": (SubsetsRecipe, run_subsets),
    "timestamps": (TimestampsRecipe, run_timestamps),
}


class _Any(msgspec.Struct):
    kind: str = "table"


def read_evaluation(
    path: Path, overrides: tuple[str, ...]
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """The recipe and what runs it.

    Raises:
        InputError: no such file, or no TOML.
        UsageError: an unknown kind or key, or a value that does not fit.
    """
    kind = load_recipe(path, _Any, overrides).kind
    if kind not in KINDS:
        raise UsageError(f"recipe {path}: kind is one of {', '.join(KINDS)}, got {kind!r}")
    recipe, run = KINDS[kind]
    return load_recipe(path, recipe, overrides), run
