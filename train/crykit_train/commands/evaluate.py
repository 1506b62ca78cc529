"""`crykit train evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("evaluate")
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
def command(
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
    need_torch()
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
