"""`crykit train mix`."""

from __future__ import annotations

from pathlib import Path

import click

from crykit_train.commands import need_torch


@click.command("mix")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--share", default=0.5, show_default=True, help="How much of AFTER.")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
def command(before: Path, after: Path, share: float, out: Path) -> None:
    """Average a detector's weights with those it had before it was trained on.

    Both are finished run folders or bundles. The result has no gate and no scores yet: go on with
    `crykit train evaluate`.
    """
    need_torch()
    from crykit_train.mix import mix_detectors

    facts = mix_detectors(before, after, share, out)
    click.echo(f"{out}: {facts['name']} {facts['version']}, {share:g} of {after.name}", err=True)
