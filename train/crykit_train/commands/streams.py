"""`crykit train streams`."""

from __future__ import annotations

from pathlib import Path

import click

from crykit_train.commands import need_torch


@click.command("streams")
@click.option("--manifest", required=True, type=click.Path(path_type=Path), help="CSV of clips.")
@click.option("--split", required=True, type=click.Choice(["val", "test"]), help="Held-out split.")
@click.option("--hours", default=1.0, show_default=True, help="How much, in ten-minute streams.")
@click.option("--seed", default=1, show_default=True)
@click.option("--no-cry", is_flag=True, help="Negatives alone, to count false alarms.")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder.")
def command(manifest: Path, split: str, hours: float, seed: int, no_cry: bool, out: Path) -> None:
    """Build long streams with ground truth from held-out clips."""
    need_torch()
    from crykit.dataset import read_manifest
    from crykit_train.nights import write_nights
    from crykit_train.progress import progress_bar

    clips = [c for c in read_manifest(manifest) if c.split == split]
    with progress_bar("building streams") as progress:
        write_nights(clips, out, hours=hours, seed=seed, no_cry=no_cry, progress=progress)
