"""`crykit train evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("evaluate")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="Instead of RUN: a table of encoders."
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="With --recipe: result folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --recipe.")
@click.option("--resume", is_flag=True, help="With --recipe: keep the cells that still hold.")
@click.option("--leaky", is_flag=True, help="With --recipe: accept groups on two sides of a split.")
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
def command(
    run: Path | None,
    recipe: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    leaky: bool,
    manifest: Path | None,
    split: str,
    streams: tuple[Path, ...],
    choose_gate: tuple[Path, ...],
    false_alarms: float,
    leave_out: str | None,
    negatives_of: str | None,
) -> None:
    """Measure a run on clips and streams, and write the scores into it.

    With --recipe, fill a table instead: encoders by protocols by tasks, or label subsets, or
    detection by the frame, as the recipe's `kind` says.
    """
    need_torch()
    if (run is None) == (recipe is None):
        raise UsageError("give either a RUN folder or --recipe FILE.toml")
    if recipe is not None:
        _by_recipe(recipe, overrides, manifest, out, resume=resume, leaky=leaky)
        return
    assert run is not None
    from crykit_train.progress import progress_bar
    from crykit_train.report import evaluate_run

    if overrides or out or resume or leaky:
        raise UsageError("--out, --set, --resume and --leaky go with --recipe")
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


def _by_recipe(
    path: Path,
    overrides: tuple[str, ...],
    manifest: Path | None,
    out: Path | None,
    *,
    resume: bool,
    leaky: bool,
) -> None:
    from crykit_train.probe.dispatch import read_evaluation

    plan, run = read_evaluation(path, overrides)
    chosen = manifest or (Path(plan.manifest) if plan.manifest else None)
    if chosen is None:
        raise UsageError("no manifest: give --manifest FILE.csv or manifest in the recipe")
    if out is None:
        raise UsageError("--recipe needs --out FOLDER for its results")
    found = run(
        plan, chosen, out, resume=resume, leaky=leaky, tell=lambda line: click.echo(line, err=True)
    )
    json.dump(found, sys.stdout, indent=2)
    print()
