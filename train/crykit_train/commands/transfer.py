"""`crykit train transfer`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("transfer")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over the recipe's."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Result folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Keep what is done already.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    leaky: bool,
) -> None:
    """Linear probes on saved embeddings, any models on any tasks."""
    need_torch()
    from crykit_train.probe.transfer import TransferRecipe, run_transfer
    from crykit_train.recipe import load_recipe

    plan = load_recipe(recipe, TransferRecipe, overrides)
    chosen = manifest or (Path(plan.manifest) if plan.manifest else None)
    if chosen is None:
        raise UsageError("no manifest: give --manifest FILE.csv or manifest in the recipe")
    found = run_transfer(
        plan, chosen, out, resume=resume, leaky=leaky, tell=lambda line: click.echo(line, err=True)
    )
    json.dump(found, sys.stdout, indent=2)
    print()
