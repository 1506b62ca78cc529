"""`crykit train analyze`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch

WHAT = ("domains", "cka", "rsa", "tsne", "ladder")


@click.command("analyze")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over the recipe's."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Result folder.")
@click.option(
    "--what",
    multiple=True,
    type=click.Choice(WHAT),
    help="Which analyses; all but the ladder without it.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=PATH",
    help="A run folder, yamnet.tflite or a folder of WavLM weights; 'random' and 'log-mel' need "
    "no path. Encoders that 'domains' trained come by themselves.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on with pre-training that was cut short.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    what: tuple[str, ...],
    models: tuple[str, ...],
    overrides: tuple[str, ...],
    resume: bool,
    leaky: bool,
) -> None:
    """Look into encoders: layers (CKA), distances (RSA), t-SNE, domains, and the leakage ladder."""
    need_torch()
    from crykit_train.progress import progress_bar
    from crykit_train.recipe import load_recipe
    from crykit_train.understand.analyses import analyse_all
    from crykit_train.understand.recipes import AnalyzeRecipe

    plan = load_recipe(recipe, AnalyzeRecipe, overrides)
    chosen = manifest or (Path(plan.manifest) if plan.manifest else None)
    if chosen is None:
        raise UsageError("no manifest: give --manifest FILE.csv or manifest in the recipe")
    asked = what or tuple(name for name in WHAT if name != "ladder")
    with progress_bar("analysing") as progress:
        found = analyse_all(
            plan,
            chosen,
            out,
            what=asked,
            models=models,
            resume=resume,
            leaky=leaky,
            progress=progress,
        )
    json.dump(found, sys.stdout, indent=2)
    print()
