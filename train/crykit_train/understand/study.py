"""What every analysis of `crykit train analyze` works on, and where it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from crykit.dataset import Clip
from crykit.errors import InputError, UsageError
from crykit_train.probe.ledger import write_bytes
from crykit_train.probe.sources import ClipBank, Source, normalise_untrained
from crykit_train.understand.recipes import AnalyzeRecipe

Progress = Callable[[int, int, float], None]


@dataclass
class Study:
    """What every analysis needs.

    Attributes:
        clips: of the whole manifest.
        models: by name, in the order of drawing.
        also: clips that an analysis needs beside those of the recipe's splits, so that every
            model embeds every clip once.
    """

    recipe: AnalyzeRecipe
    clips: list[Clip]
    models: dict[str, Source]
    out: Path
    leaky: bool = False
    progress: Progress | None = None
    also: list[Clip] = field(default_factory=list)
    cache: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cache = Path(self.recipe.cache) if self.recipe.cache else self.out / "cache"
        self.leaky = self.leaky or any(m.record.get("leaky") for m in self.models.values())
        self._bank: ClipBank | None = None

    @property
    def bank(self) -> ClipBank:
        """Every clip that is needed, with its embeddings."""
        if self._bank is None:
            wanted = {c.path: c for c in (*self.looked_at, *self.also)}
            self._bank = ClipBank(list(wanted.values()), self.cache)
            # Untrained encoders get statistics, which else come from what was heard.
            training = [c for c in self._bank.clips if c.split == "train"] or self._bank.clips
            self.models = {
                name: normalise_untrained(model, self._bank, training)
                for name, model in self.models.items()
            }
        return self._bank

    @cached_property
    def looked_at(self) -> list[Clip]:
        """The clips of CKA, RSA and t-SNE: those of the recipe's splits."""
        chosen = [c for c in self.clips if c.split in self.recipe.splits]
        if not chosen:
            raise InputError(
                f"the manifest has no clip in {' or '.join(self.recipe.splits)}; name its splits "
                "in the recipe"
            )
        return chosen

    @cached_property
    def embeddings(self) -> dict[str, NDArray[np.float32]]:
        """Of each model and each clip looked at, (clips, size)."""
        rows = self.bank.rows(self.looked_at)
        return {
            name: self.bank.embeddings(model, self.tell).numpy()[rows]
            for name, model in self.models.items()
        }

    def need_models(self, least: int = 1) -> None:
        if len(self.models) < least:
            raise UsageError(
                f"give at least {least} model(s) with --model NAME=PATH, got {len(self.models)}"
            )

    def write(self, name: str, found: dict[str, Any]) -> dict[str, Any]:
        """Write ``name.json`` with the stamp of a leaky run; returns what it holds."""
        models = {
            key: {
                "objective": model.record.get("objective", "a peer's"),
                "heard": model.record.get("training", {}).get("data", []),
            }
            for key, model in self.models.items()
        }
        found = {"leaky": self.leaky, "models": models, **found}
        write_bytes(
            self.out / f"{name}.json", (json.dumps(to_json(found), indent=2) + "\n").encode()
        )
        return found

    def tell(self, step: int, steps: int) -> None:
        if self.progress:
            self.progress(step, steps, math.nan)


def to_json(value: Any) -> Any:
    """JSON's own kinds; nan becomes null."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return msgspec.to_builtins(value)
