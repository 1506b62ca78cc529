"""`crykit train adapt`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("adapt")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--init", required=True, type=click.Path(path_type=Path), help="The pre-trained run's folder."
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over data.manifest."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    init: Path,
    manifest: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    leaky: bool,
) -> None:
    """Go on with a pre-trained encoder and its projector on unlabelled cries."""
    need_torch()
    from crykit.dataset import read_manifest
    from crykit_train.progress import progress_bar
    from crykit_train.recipe import load_recipe
    from crykit_train.ssl.adaptation import adaptation_plan
    from crykit_train.ssl.engine import train
    from crykit_train.ssl.recipes import AdaptRecipe

    asked = load_recipe(recipe, AdaptRecipe, overrides)
    chosen = manifest or (Path(asked.data.manifest) if asked.data.manifest else None)
    if chosen is None and not asked.data.shards:
        raise UsageError("no manifest: give --manifest FILE.csv or data.manifest in the recipe")
    clips = read_manifest(chosen, leaky=leaky) if chosen else []
    plan = adaptation_plan(asked, init, clips, leaky=leaky)
    with progress_bar("adapting") as progress:
        metrics = train(plan, out, resume=resume, progress=progress)
    if metrics:  # of many processes, the first one speaks
        json.dump(metrics, sys.stdout, indent=2)
        print()
