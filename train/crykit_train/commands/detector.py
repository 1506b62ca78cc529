"""`crykit train detector`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("detector")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over data.manifest."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option("--init", type=click.Path(path_type=Path), help="A run or bundle to start from.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    init: Path | None,
    leaky: bool,
) -> None:
    """Train the streaming cry detector from a manifest of clips."""
    need_torch()
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
