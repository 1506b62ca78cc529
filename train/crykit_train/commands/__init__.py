"""`crykit train ...`. Each module here is a subcommand, imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

from crykit.errors import MissingPart

# Subcommand to its module in this package, whose `command` it is; --help lists them in this order.
SUBCOMMANDS = (
    "detector",
    "pretrain",
    "adapt",
    "finetune",
    "distill",
    "mix",
    "streams",
    "evaluate",
    "baseline",
    "transfer",
    "analyze",
    "throughput",
)


class _Subcommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        return import_module(f"{__name__}.{cmd_name}").command


@click.group(cls=_Subcommands)
def command() -> None:
    """Train and measure models."""


def need_torch() -> None:
    """Raise MissingPart unless what training needs is installed."""
    if not (find_spec("torch") and find_spec("scipy")):
        raise MissingPart(
            "training needs torch, which is not installed; "
            "run: pip install torch==2.13.0 'crykit[train]'"
        )
