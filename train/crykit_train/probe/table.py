"""`crykit train evaluate --recipe`: models by protocols by tasks (Gorin et al., tables 3, 4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save

from crykit.dataset import Clip, read_manifest
from crykit.nn.pretrained import RECORD
from crykit_train.probe.ledger import Ledger, key_of, write_bytes, write_json
from crykit_train.probe.metrics import difference
from crykit_train.probe.protocol import evaluate_source
from crykit_train.probe.recipes import (
    ModelRecipe,
    Precision,
    ProtocolRecipe,
    TaskRecipe,
    tasks_of,
)
from crykit_train.probe.sources import (
    COMPARE,
    RANDOM,
    YAMNET,
    ClipBank,
    Source,
    general_clips,
    heard_sources,
    normalise_untrained,
    open_source,
)
from crykit_train.probe.tasks import Task, describe

Tell = Callable[[str], None]
Cell = dict[str, Any]

NOT_RUN = "not run"


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model. ``columns`` limits it to some protocols; empty means all that it can do.

    ``runs`` gives another run folder for a task, by its label: an encoder adapted to cries must not
    have heard the source that the task leaves out, so there is one for each.
    """

    label: str
    model: ModelRecipe = ModelRecipe()
    columns: tuple[str, ...] = ()
    runs: dict[str, str] = {}

    def model_for(self, task: str) -> ModelRecipe:
        return msgspec.structs.replace(self.model, run=self.runs.get(task, self.model.run))


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A protocol with its settings. ``tasks`` limits it to some, by their label."""

    label: str
    probe: ProtocolRecipe = ProtocolRecipe()
    tasks: tuple[str, ...] = ()


class TableRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole table. Columns are worked off one after the other, so put the cheap ones first."""

    kind: Literal["table"] = "table"
    manifest: str = ""
    cache: str = ""
    rows: tuple[Row, ...] = (Row("random"),)
    columns: tuple[Column, ...] = (Column("linear"),)
    tasks: tuple[TaskRecipe, ...] = (TaskRecipe(),)
    # Sources that come from the same place as another: an encoder that heard one is marked.
    same_origin: dict[str, tuple[str, ...]] = {}
    # Pairs of rows, by label: the first less the second, on the same draws of groups.
    differences: tuple[tuple[str, str], ...] = ()
    # No cell is begun later than this; what is left is marked. 0 is no limit.
    budget_minutes: float = 0.0
    bootstrap_draws: int = 1000
    precision: Precision = "32-true"  # of frozen embeddings; a column has its own for training
    threads: int = 1


def run_table(
    recipe: TableRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Fill the table, cell by cell; ``table.json`` and ``table.md`` of the folder hold it.

    Raises:
        InputError: the manifest, a task that it cannot answer, or a damaged run.
        UsageError: the folder holds other results.
    """
    torch.set_num_threads(recipe.threads)
    began = time.monotonic()
    clips = read_manifest(manifest, leaky=leaky)
    asked = {t.label: (t, tasks_of(t, clips, leaky=leaky)) for t in recipe.tasks}
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    worker = _Worker(recipe, clips, {k: folds for k, (_, folds) in asked.items()})
    cells: dict[tuple[str, str, str], Cell] = {}
    for column in recipe.columns:
        for row in recipe.rows:
            for label, (task, folds) in asked.items():
                reason = _skipped(recipe, row, column, label)
                if reason is not None:
                    cells[row.label, column.label, label] = {"not_run": reason}
                    continue
                source = worker.source(row.model_for(label))
                facts = (column.probe, recipe.bootstrap_draws, recipe.precision)
                key = key_of(source.digest, task, *facts)
                cell = ledger.get(key)
                if cell is None or not scores_file(out, key).is_file():
                    if _is_over(recipe, began):
                        cells[row.label, column.label, label] = {"not_run": "time"}
                        continue
                    cell = worker.measure(source, folds, column.probe, tell, scores_file(out, key))
                    cell["key"] = key
                    ledger.put(key, cell)
                cells[row.label, column.label, label] = cell
            _write(out, recipe, asked, cells, leaky)
    return _write(out, recipe, asked, cells, leaky)


class _Worker:
    """The clips, and the models as they are asked for."""

    def __init__(
        self, recipe: TableRecipe, clips: Sequence[Clip], asked: Mapping[str, Sequence[Task]]
    ) -> None:
        self.recipe = recipe
        union = {c.path: c for folds in asked.values() for task in folds for c in task.clips}
        cache = Path(recipe.cache) if recipe.cache else None
        self.bank = ClipBank(list(union.values()), cache, recipe.precision)
        left_out = {s for folds in asked.values() for task in folds for s in task.left_out}
        # What any of the tasks leaves out does not set an untrained encoder's statistics either.
        self.general = general_clips(self.bank.clips, left_out)
        self._sources: dict[bytes, Source] = {}

    def source(self, model: ModelRecipe) -> Source:
        key = msgspec.json.encode(model)
        if key not in self._sources:
            opened = open_source(model)
            self._sources[key] = normalise_untrained(opened, self.bank, self.general)
        return self._sources[key]

    def measure(
        self,
        source: Source,
        folds: Sequence[Task],
        probe: ProtocolRecipe,
        tell: Tell | None,
        file: Path,
    ) -> Cell:
        began = time.monotonic()
        outcome = evaluate_source(source, folds, probe, self.bank, tell=tell)
        write_bytes(file, save({"scores": torch.from_numpy(outcome.scores.astype(np.float32))}))
        left_out = {s for task in folds for s in task.left_out}
        heard = heard_sources(source.record)
        related = {r for s in left_out for r in self.recipe.same_origin.get(s, ())}
        return {
            **outcome.summary(self.recipe.bootstrap_draws),
            "heard": sorted(heard),
            "heard_left_out": sorted(heard & left_out),
            "heard_same_origin": sorted(heard & related),
            "encoder_leaky": bool(source.record.get("leaky", False)),
            "seconds": round(time.monotonic() - began, 1),
        }


def scores_file(out: Path, key: str) -> Path:
    """Where a cell's scores of the test clips are, (repeats, clips, classes)."""
    return out / "scores" / f"{key}.safetensors"


def compare_rows(
    out: Path,
    pairs: Sequence[tuple[str, str]],
    asked: Mapping[str, tuple[TaskRecipe, list[Task]]],
    cells: Mapping[tuple[str, str, str], Cell],
) -> list[dict[str, Any]]:
    """The first row less the second, wherever both have a value, with the paired interval."""
    found: list[dict[str, Any]] = []
    for (ours, theirs), column, task in product(
        pairs, dict.fromkeys(c for _, c, _ in cells), asked
    ):
        both = [cells.get((row, column, task), {}) for row in (ours, theirs)]
        if not all("key" in cell for cell in both):
            continue
        folds = asked[task][1]
        tested = [(t, i) for t in folds for i in t.indices("test")]
        targets = np.array([t.targets[i] for t, i in tested])
        groups = [t.groups[i] for t, i in tested]
        a, b = (
            load_file(scores_file(out, cell["key"]))["scores"].double().numpy() for cell in both
        )
        value, low, high = difference(folds[0].metric, targets, a, b, groups)
        found.append(
            {
                "row": ours,
                "less": theirs,
                "column": column,
                "task": task,
                "value": round(value, 4),
                "ci95": [round(low, 4), round(high, 4)],
            }
        )
    return found


def _is_over(recipe: TableRecipe, began: float) -> bool:
    return recipe.budget_minutes > 0 and time.monotonic() - began > 60 * recipe.budget_minutes


def _skipped(recipe: TableRecipe, row: Row, column: Column, task: str) -> str | None:
    """Why a cell is not to be filled, or None."""
    run = row.model_for(task).run
    if column.probe.protocol in ("linear+bn", "end-to-end") and run in (COMPARE, YAMNET):
        return "no weights to train"
    if (row.columns and column.label not in row.columns) or (
        column.tasks and task not in column.tasks
    ):
        return "left out"
    own = run not in (COMPARE, YAMNET) and not run.startswith(RANDOM)
    if own and not (Path(run) / RECORD).is_file():
        return "no such run"
    return None


def _write(
    out: Path,
    recipe: TableRecipe,
    asked: Mapping[str, tuple[TaskRecipe, list[Task]]],
    cells: Mapping[tuple[str, str, str], Cell],
    leaky: bool,
) -> dict[str, Any]:
    table = {
        "leaky": leaky,
        "tasks": {label: describe(folds[0]) for label, (_, folds) in asked.items()},
        "cells": [
            {"row": row, "column": column, "task": task, **cell}
            for (row, column, task), cell in cells.items()
        ],
    }
    table["differences"] = compare_rows(out, recipe.differences, asked, cells)
    write_json(out / "table.json", table)
    text = markdown(
        [r.label for r in recipe.rows], [c.label for c in recipe.columns], list(asked), cells, leaky
    )
    write_bytes(out / "table.md", text.encode())
    return table


def markdown(
    rows: Sequence[str],
    columns: Sequence[str],
    tasks: Sequence[str],
    cells: Mapping[tuple[str, str, str], Cell],
    leaky: bool = False,
) -> str:
    """One table a task: mean ± standard error over repeats, [95 % interval over groups]."""
    lines: list[str] = []
    for task in tasks:
        filled = [c for (_, _, t), c in cells.items() if t == task and "value" in c]
        stamp = " (LEAKY SPLIT)" if leaky else ""
        lines += [f"### {task}{stamp}", ""]
        if filled:
            c = filled[0]
            holders = ", ".join(f"{n} {g}" for n, g in c["class_groups"].items())
            lines += [
                f"{'Macro AUC' if c['metric'] == 'auc' else 'Average precision'}; "
                f"{c['clips']} test clips of {c['groups']} groups ({holders}).",
                "",
            ]
        lines += ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in rows:
            found = [_cell(cells.get((row, column, task))) for column in columns]
            lines.append(f"| {row} | " + " | ".join(found) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return NOT_RUN
    if "value" not in cell:
        return "–" if cell["not_run"] == "no weights to train" else NOT_RUN
    error = cell["standard_error"]
    spread = f" ± {error:.3f}" if error is not None else ""
    low, high = cell["ci95"]
    marks = ("†" if cell["heard_left_out"] else "") + ("‡" if cell["heard_same_origin"] else "")
    return f"{cell['value']:.3f}{spread} [{low:.2f}, {high:.2f}]{marks}"
