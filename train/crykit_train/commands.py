"""`crykit train ...`: learning and measuring."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from crykit.errors import MissingPart, UsageError


def _need_torch() -> None:
    if not (find_spec("torch") and find_spec("scipy")):
        raise MissingPart(
            "training needs torch, which is not installed; "
            "run: pip install torch==2.13.0 'crykit[train]'"
        )


@click.group()
def command() -> None:
    """Train and measure models."""


@command.command()
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over data.manifest."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option("--init", type=click.Path(path_type=Path), help="A finished run to start from.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def detector(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    init: Path | None,
    leaky: bool,
) -> None:
    """Train the streaming cry detector from a manifest of clips."""
    _need_torch()
    from crykit_train.detector import train_detector
    from crykit_train.progress import progress_bar
    from crykit_train.recipe import read_recipe

    plan = read_recipe(recipe, overrides)
    chosen = manifest or (Path(plan.data.manifest) if plan.data.manifest else None)
    if chosen is None:
        raise UsageError("no manifest: give --manifest FILE.csv or data.manifest in the recipe")
    with progress_bar("training") as progress:
        metrics = train_detector(
            plan, chosen, out, resume=resume, leaky=leaky, init=init, progress=progress
        )
    json.dump(metrics, sys.stdout, indent=2)
    print()


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--manifest", type=click.Path(path_type=Path), help="CSV of clips to score.")
@click.option("--split", default="test", show_default=True, help="Which of its clips.")
@click.option(
    "--streams", multiple=True, type=click.Path(path_type=Path), help="Folder of streams to score."
)
@click.option(
    "--choose-gate",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="First choose the gate on these streams, built from the val split, and keep it.",
)
@click.option(
    "--false-alarms",
    default=0.5,
    show_default=True,
    help="With --choose-gate: how many an hour are bearable.",
)
@click.option("--leave-out", metavar="SOURCE", help="Score a source that the run never heard.")
@click.option(
    "--negatives-of", metavar="SOURCE", help="With --leave-out: take its test negatives instead."
)
def evaluate(
    run: Path,
    manifest: Path | None,
    split: str,
    streams: tuple[Path, ...],
    choose_gate: tuple[Path, ...],
    false_alarms: float,
    leave_out: str | None,
    negatives_of: str | None,
) -> None:
    """Measure a run on clips and streams, and write the scores into it."""
    _need_torch()
    from crykit_train.progress import progress_bar
    from crykit_train.report import evaluate_run

    if leave_out and not manifest:
        raise UsageError("--leave-out needs --manifest FILE.csv with that source's clips")
    with progress_bar("evaluating") as progress:
        scores = evaluate_run(
            run,
            manifest=manifest,
            split=split,
            streams=streams,
            gate_streams=choose_gate,
            false_alarms_per_hour=false_alarms,
            leave_out=leave_out,
            negatives_of=negatives_of,
            progress=progress,
        )
    json.dump(scores, sys.stdout, indent=2)
    print()


@command.command()
@click.option("--manifest", required=True, type=click.Path(path_type=Path), help="CSV of clips.")
@click.option("--split", required=True, type=click.Choice(["val", "test"]), help="Held-out split.")
@click.option("--hours", default=1.0, show_default=True, help="How much, in ten-minute streams.")
@click.option("--seed", default=1, show_default=True)
@click.option("--no-cry", is_flag=True, help="Negatives alone, to count false alarms.")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder.")
def streams(manifest: Path, split: str, hours: float, seed: int, no_cry: bool, out: Path) -> None:
    """Build long streams with ground truth from held-out clips."""
    _need_torch()
    from crykit.dataset import read_manifest
    from crykit_train.nights import write_nights
    from crykit_train.progress import progress_bar

    clips = [c for c in read_manifest(manifest) if c.split == split]
    with progress_bar("building streams") as progress:
        write_nights(clips, out, hours=hours, seed=seed, no_cry=no_cry, progress=progress)
