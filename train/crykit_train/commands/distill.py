"""`crykit train distill`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec

from crykit.errors import UsageError
from crykit_train.commands import need_torch


@click.command("distill")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe.")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV of clips, over data.manifest."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="KIND=PATH",
    help="Where the recipe's teacher of that kind lies: yamnet, encoder or detector.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's checkpoint.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="A finished run or a bundle to start from."
)
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def command(
    recipe: Path,
    manifest: Path | None,
    out: Path,
    teachers: tuple[str, ...],
    overrides: tuple[str, ...],
    resume: bool,
    init: Path | None,
    leaky: bool,
) -> None:
    """Train the streaming student from labels and from what teachers hear."""
    need_torch()
    from crykit_train.detector import train_detector
    from crykit_train.progress import progress_bar
    from crykit_train.recipe import read_recipe

    plan = read_recipe(recipe, overrides)
    placed = _placed(plan.distil.teachers, teachers)
    plan = msgspec.structs.replace(
        plan, distil=msgspec.structs.replace(plan.distil, teachers=placed)
    )
    chosen = manifest or (Path(plan.data.manifest) if plan.data.manifest else None)
    if chosen is None:
        raise UsageError("no manifest: give --manifest FILE.csv or data.manifest in the recipe")
    with progress_bar("distilling") as progress:
        metrics = train_detector(
            plan, chosen, out, resume=resume, leaky=leaky, init=init, progress=progress
        )
    json.dump(metrics, sys.stdout, indent=2)
    print()


def _placed(teachers, paths: tuple[str, ...]) -> tuple:
    """The recipe's teachers with the paths of the command line, in order for each kind."""
    if not teachers:
        raise UsageError(
            "the recipe names no teacher; add [[distil.teachers]], or use crykit train detector"
        )
    given: dict[str, list[str]] = {}
    for text in paths:
        kind, equals, path = text.partition("=")
        if not equals or kind not in {teacher.kind for teacher in teachers}:
            kinds = ", ".join(sorted({teacher.kind for teacher in teachers}))
            raise UsageError(f"--teacher {text!r}: expected KIND=PATH with a kind of: {kinds}")
        given.setdefault(kind, []).append(path)
    placed = tuple(
        msgspec.structs.replace(teacher, path=given[teacher.kind].pop(0))
        if given.get(teacher.kind)
        else teacher
        for teacher in teachers
    )
    left = [f"{kind}={path}" for kind, rest in given.items() for path in rest]
    if left:
        raise UsageError(f"--teacher {left[0]}: the recipe has no teacher left for it; take it out")
    return placed
