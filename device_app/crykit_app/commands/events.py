"""`crykit events`: the event log."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crykit_app.logbook import StoredEvent

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_since(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A moment (ISO 8601), or how long ago: 90m, 12h, 7d."""
    if value is None:
        return None
    try:
        if value[-1:] in _UNITS_S:
            ago = timedelta(seconds=float(value[:-1]) * _UNITS_S[value[-1]])
            return datetime.now().astimezone() - ago
        moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected 90m, 12h, 7d or 2026-11-20T21:00, got {value!r}", ctx, param
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


@click.command("events")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "jsonl", "csv"]),
    help="For people (default on a terminal), event lines, or a spreadsheet.",
)
@click.option(
    "--since", callback=parse_since, metavar="WHEN", help="For example 12h, 7d or a date."
)
@click.option("--db", metavar="FILE", help="The log; default: the one that `listen` writes.")
@click.option("--data-dir", metavar="FOLDER", help="Folder of the log, as for `listen`.")
@click.option("--prune", is_flag=True, help="Forget old events, for good, instead of listing any.")
@click.option(
    "--keep-days", type=click.FloatRange(1), metavar="N", help="With --prune: all that is younger."
)
@click.option(
    "--keep-mb", type=click.FloatRange(1), metavar="N", help="With --prune: as much as fits."
)
def command(
    format_: str | None,
    since: datetime | None,
    db: str | None,
    data_dir: str | None,
    prune: bool,
    keep_days: float | None,
    keep_mb: float | None,
) -> None:
    """List the cries that were heard, oldest first.

    A cry whose end was never written (the power failed, or it is going on) has no length. Nothing
    is ever forgotten unless --prune says so.
    """
    from crykit_app.logbook import read_events
    from crykit_app.store import default_path

    path = Path(db) if db else default_path(data_dir)
    if prune or keep_days is not None or keep_mb is not None:
        if not prune or (keep_days is None and keep_mb is None):
            raise click.UsageError("--prune goes with --keep-days or --keep-mb")
        _prune(path, keep_days, keep_mb)
        return
    chosen = format_ or ("table" if sys.stdout.isatty() else "jsonl")
    write = {"table": _table, "jsonl": _jsonl, "csv": _csv}[chosen]
    write(read_events(path, since))
    sys.stdout.flush()


def _prune(path: Path, keep_days: float | None, keep_mb: float | None) -> None:
    from crykit_app.retention import prune

    before = None
    if keep_days is not None:
        before = datetime.now().astimezone() - timedelta(days=min(keep_days, 365_000))
    max_bytes = None if keep_mb is None else round(keep_mb * 1_000_000)
    pruned = prune(path, before=before, max_bytes=max_bytes)
    click.echo(
        f"forgot {pruned.events} events, kept {pruned.events_left}; the log holds "
        f"{pruned.size_bytes / 1_000_000:.2f} MB",
        err=True,
    )


def _fields(event: StoredEvent) -> dict[str, Any]:
    from crykit.events import NO_REASONS, SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "type": "cry",
        "id": event.id,
        "source": event.source,
        "start": event.start.isoformat(timespec="milliseconds") if event.start else None,
        "onset_s": _rounded(event.onset_s, 3),
        "offset_s": _rounded(event.offset_s, 3),
        "peak_probability": _rounded(event.peak_probability, 4),
        "mean_probability": _rounded(event.mean_probability, 4),
        "level_dbfs": _rounded(event.level_dbfs, 1),
        "reasons": NO_REASONS,
        "model": event.model,
    }


def _jsonl(events: Iterable[StoredEvent]) -> None:
    from crykit.events import encode_line

    for event in events:
        sys.stdout.buffer.write(encode_line(_fields(event)))


def _csv(events: Iterable[StoredEvent]) -> None:
    from crykit.commands.event_writer import CSV_COLUMNS

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for event in events:
        fields = _fields(event)
        writer.writerow([fields[name] for name in CSV_COLUMNS])


def _table(events: Iterable[StoredEvent]) -> None:
    from crykit_app.clocktext import length_text

    click.echo(f"{'when':<19}  {'length':>8}  {'peak':>4}  {'level':>9}  source")
    for event in events:
        when = (event.start or event.logged).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        length, peak, level = "?", "?", "?"
        if event.offset_s is not None:
            length = length_text(event.offset_s - event.onset_s)
        if event.peak_probability is not None and event.level_dbfs is not None:
            peak, level = f"{event.peak_probability:.2f}", f"{event.level_dbfs:.0f} dBFS"
        place = event.source if event.start else f"{event.source} at {length_text(event.onset_s)}"
        click.echo(f"{when:<19}  {length:>8}  {peak:>4}  {level:>9}  {place}")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
