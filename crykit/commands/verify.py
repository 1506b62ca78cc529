"""`crykit verify`: digests, and golden clips on every runtime that is installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from crykit.verification import Check


@click.command("verify")
@click.argument("bundle", required=False, metavar="[BUNDLE]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="Default: a table on a terminal, else JSON.",
)
@click.pass_context
def command(ctx: click.Context, bundle: str | None, format_: str | None) -> None:
    """Check a model bundle: its digests, then its golden clip on every installed runtime.

    Without BUNDLE the shipped model is checked. Exits 1 where something does not agree; a runtime
    that is not installed is skipped, and named. Each runs in a process of its own: one that crashes
    or hangs is a line of the report.
    """
    from crykit.bundle import BundleDigestError, open_any, resolve_model
    from crykit.errors import FaultFound
    from crykit.verification import verify_bundle

    try:
        opened = open_any(resolve_model(bundle))
    except BundleDigestError as error:
        raise FaultFound(str(error)) from None
    report = verify_bundle(opened)
    if (format_ or ("table" if sys.stdout.isatty() else "json")) == "json":
        click.echo(_as_json(str(opened.folder), opened.model_id, report))
    else:
        click.echo(_as_table(report))
    if any(check.ok is False for check in report):
        ctx.exit(1)


def _as_json(folder: str, model: str, report: list[Check]) -> str:
    import msgspec

    document = {
        "schema_version": 1,
        "bundle": folder,
        "model": model,
        "ok": all(check.ok is not False for check in report),
        "checks": report,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _as_table(report: list[Check]) -> str:
    rows: list[tuple[str, ...]] = [("check", "runtime", "result", "max abs", "tolerance", "")]
    for check in report:
        result = "skipped" if check.ok is None else "ok" if check.ok else "FAILED"
        step = f"{check.step_samples} samples" if check.step_samples else None
        form = "whole clips" if check.form == "clip" else None
        what = " ".join(part for part in (check.runtime, check.precision, step, form) if part)
        figures = [_figure(check.max_abs), _figure(check.tolerance)]
        detail = (check.detail or "").removeprefix("skipped: ")
        rows.append((check.check, what, result, *figures, detail))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
