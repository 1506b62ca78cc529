"""`crykit doctor`: does listening work here, and if not, what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from crykit.commands.options import model_options

if TYPE_CHECKING:
    from crykit_app.checks import Finding

_MARKS = {True: "ok", False: "FAULT", None: "-"}


@click.command("doctor")
@click.option("--device", metavar="NAME|N", help="Microphone; see: crykit devices.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 60),
    default=3.0,
    show_default=True,
    help="How long to listen to it.",
)
@click.option("--data-dir", metavar="FOLDER", help="Folder of the event log, as for `listen`.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="Default: a table on a terminal, else JSON.",
)
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    device: str | None,
    seconds: float,
    data_dir: str | None,
    format_: str | None,
    model: str | None,
    runtime: str | None,
    precision: str | None,
) -> None:
    """Check microphone, rate, level, model, speed and event log; each fault comes with its fix.

    Exits 1 if there is a fault. Nothing that is recorded is kept.
    """
    from crykit_app.checks import check_device, check_model, check_store

    findings = [
        *check_model(model, runtime, precision),
        *check_store(data_dir),
        *check_device(device, seconds),
    ]
    if (format_ or ("table" if sys.stdout.isatty() else "json")) == "json":
        _print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.ok]:<5}  {finding.check:<16}  {finding.detail}")
            if finding.fix:
                click.echo(f"{'':5}  {'':16}  fix: {finding.fix}")
    if any(finding.ok is False for finding in findings):
        ctx.exit(1)


def _print_json(findings: list[Finding]) -> None:
    import msgspec

    document = {
        "schema_version": 1,
        "ok": all(finding.ok is not False for finding in findings),
        "checks": findings,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
