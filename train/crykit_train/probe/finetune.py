"""`crykit train finetune`: one model, one task, one protocol, and the best probe kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save

from crykit.dataset import read_manifest
from crykit.nn.pretrained import Pretrained, save_pretrained
from crykit_train.probe.ledger import Ledger, key_of, write_bytes, write_json
from crykit_train.probe.outcome import Outcome, pooled
from crykit_train.probe.protocol import evaluate_source
from crykit_train.probe.recipes import FinetuneRecipe, tasks_of
from crykit_train.probe.sources import (
    Body,
    ClipBank,
    Source,
    general_clips,
    heard_sources,
    normalise_untrained,
    open_source,
)

Tell = Callable[[str], None]


def run_finetune(
    recipe: FinetuneRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Grid, repeats and scores; the folder also gets the best probe, with its encoder if trained.

    A fold of the task is the unit that is kept: after a kill, ``resume`` trains the one at work
    anew, to the same curve, since every training has its own seed.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        InputError: the manifest, a task that it cannot answer, or a run without an encoder.
        UsageError: the folder holds other results, or the model cannot be trained so.
        FaultFound: every learning rate ended in a loss that is no number.
    """
    torch.set_num_threads(recipe.threads)
    clips = read_manifest(manifest, leaky=leaky)
    folds = tasks_of(recipe.task, clips, leaky=leaky)
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    union = list({c.path: c for task in folds for c in task.clips}.values())
    bank = ClipBank(union, Path(recipe.cache) if recipe.cache else None)
    left_out = {s for task in folds for s in task.left_out}
    source = open_source(recipe.model)
    source = normalise_untrained(source, bank, general_clips(union, left_out))
    device = Fabric(accelerator="auto", devices=1).device
    outcomes: list[Outcome] = []
    for task in folds:
        key = key_of(source.digest, recipe.task, recipe.probe, task.name)
        kept = ledger.get(key)
        if kept is not None:
            outcomes.append(Outcome.restored(task, kept))
            continue
        outcome = evaluate_source(source, [task], recipe.probe, bank, device=device, tell=tell)
        _keep_best(out, source, outcome, recipe, leaky)
        ledger.put(key, outcome.stored())
        outcomes.append(outcome)
    found = pooled(outcomes)
    metrics = {
        "leaky": leaky,
        "model": source.name,
        "task": recipe.task.label,
        "protocol": recipe.probe.protocol,
        **found.summary(),
        "heard": sorted(heard_sources(source.record)),
        "heard_left_out": sorted(heard_sources(source.record) & left_out),
    }
    write_json(out / "metrics.json", metrics)
    write_json(out / "fits.json", found.fits)
    if found.fits:
        draw_fits(found.fits, out / "curves.png")
    return metrics


def _keep_best(
    out: Path, source: Source, outcome: Outcome, recipe: FinetuneRecipe, leaky: bool
) -> None:
    """The fold's best probe: ``probe.safetensors``, and the encoder where it was trained."""
    best = outcome.best
    if best is None:
        return
    folder = out / outcome.task.name.replace(" ", "-").replace(",", "")
    layer = {
        "weight": best.probe.linear.weight,
        "bias": best.probe.linear.bias,
        "centre": best.probe.centre,
        "scale": best.probe.scale,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in layer.items()}
    write_bytes(folder / "probe.safetensors", save(tensors))
    facts = {
        "classes": outcome.task.classes,
        "validation": best.validation_score,
        "epoch": best.epoch,
        "leaky": leaky,
    }
    write_json(folder / "probe.json", facts)
    body = best.probe.body
    if isinstance(body, Body) and source.pretrained is not None:
        record = {
            **source.record,
            "stage": "finetune",
            "leaky": leaky or bool(source.record.get("leaky")),
            "log_mel": {"n_mels": body.encoder.n_mels, "mean": body.mean, "std": body.std},
            "training": {
                "task": outcome.task.name,
                "protocol": recipe.probe.protocol,
                "data": _data(outcome),
                "started_from": source.record.get("training", {}),
            },
        }
        trained = Pretrained(body.encoder.cpu(), body.mean, body.std, body.head, record)
        save_pretrained(folder, trained)


def _data(outcome: Outcome) -> list[dict[str, object]]:
    from crykit.dataset import data_summary

    task = outcome.task
    return data_summary([task.clips[i] for i in task.indices("train")])


def draw_fits(fits: list[dict[str, Any]], path: Path) -> None:
    """Validation loss and score of every training, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for found in fits:
        if "history" not in found:
            continue
        colour = "#0072b2" if found["kind"] == "repeat" else "#bbbbbb"
        epochs = [row["epoch"] for row in found["history"]]
        for axis, name in zip(axes, ("val_loss", "val_score"), strict=True):
            axis.plot(epochs, [row[name] for row in found["history"]], color=colour, lw=0.8)
    axes[0].set(xlabel="epoch", ylabel="validation loss", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="validation score")
    figure.suptitle("grey: search, blue: repeats")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
