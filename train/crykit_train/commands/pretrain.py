"""`crykit train pretrain`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("pretrain")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over data.manifest."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    leaky: bool,
) -> None:
    """Pre-train an encoder: SimCLR, BYOL, hybrid, or supervised as the control."""
    need_torch()
    from crykit.dataset import read_manifest
    from crykit_train.progress import progress_bar
    from crykit_train.recipe import load_recipe
    from crykit_train.ssl.build import Plan
    from crykit_train.ssl.corpus import select_clips
    from crykit_train.ssl.engine import train
    from crykit_train.ssl.recipes import PretrainRecipe
    from crykit_train.ssl.sources import shard_urls

    plan = load_recipe(recipe, PretrainRecipe, overrides)
    if plan.data.shards:
        _, _, torn = shard_urls(plan.data)
        if torn and not leaky:
            raise UsageError("data.shards: groups straddle their splits; --leaky runs it anyway")
        clips = []
    else:
        chosen = manifest or (Path(plan.data.manifest) if plan.data.manifest else None)
        if chosen is None:
            raise UsageError("no manifest: give --manifest FILE.csv or data.manifest in the recipe")
        clips = select_clips(read_manifest(chosen, leaky=leaky), plan.data)
    with progress_bar("pre-training") as progress:
        metrics = train(
            Plan(plan, clips, asked=plan, leaky=leaky), out, resume=resume, progress=progress
        )
    if metrics:  # of many processes, the first one speaks
        json.dump(metrics, sys.stdout, indent=2)
        print()
