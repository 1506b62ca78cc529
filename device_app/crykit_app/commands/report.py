"""`crykit report`: the night on one page."""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from crykit_app.report.period import Period


def parse_night(ctx: click.Context, param: click.Parameter, value: str | None) -> date | None:
    """The day of a night's evening."""
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"expected the day of its evening, such as 2026-11-20, got {value!r}", ctx, param
        ) from None


def parse_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A moment on the local clock, or with an offset."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"expected a time such as 2026-11-20T21:00, got {value!r}", ctx, param
        ) from None


@click.command("report")
@click.option(
    "--night",
    callback=parse_night,
    metavar="DATE",
    help="The night that began on the evening of DATE; default: last night.",
)
@click.option("--from", "begin", callback=parse_moment, metavar="TIME", help="In place of a night.")
@click.option("--to", "end", callback=parse_moment, metavar="TIME", help="Its end; default: now.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["html", "json", "csv"]),
    default="html",
    show_default=True,
    help="A page to read, or the same figures for a program.",
)
@click.option(
    "-o",
    "--out",
    metavar="FILE|-",
    help="Where to; default: crykit-night-DATE.html here, standard output for json and csv.",
)
@click.option("--db", metavar="FILE", help="The log; default: the one that `listen` writes.")
@click.option("--data-dir", metavar="FOLDER", help="Folder of the log, as for `listen`.")
def command(
    night: date | None,
    begin: datetime | None,
    end: datetime | None,
    format_: str,
    out: str | None,
    db: str | None,
    data_dir: str | None,
) -> None:
    """Show a night: when it cried, how long it was quiet, and when nothing listened.

    A night runs from noon to noon. The page is one file that needs no network and no script. This
    is not a medical device, and it does not know why a baby cries.
    """
    from crykit_app.logbook import read_logbook
    from crykit_app.report.chronicle import Chronicle
    from crykit_app.report.period import night_at
    from crykit_app.report.trends import month_to
    from crykit_app.store import default_path

    now = datetime.now().astimezone()
    period = _period(night, begin, end, now)
    chronicle = Chronicle(read_logbook(Path(db) if db else default_path(data_dir)), now)
    facts = chronicle.night(period)
    month = month_to(chronicle, night_at(period.end - timedelta(seconds=1)))
    if format_ == "html":
        from crykit_app.report.page import as_html

        document = as_html(facts, month)
    else:
        from crykit_app.report import tables

        document = (tables.as_json if format_ == "json" else tables.as_csv)(facts, month)
    _write(document, out or (_file_name(period) if format_ == "html" else "-"))


def _period(
    night: date | None, begin: datetime | None, end: datetime | None, now: datetime
) -> Period:
    from crykit_app.report.period import chosen_period, last_night, night_of

    if begin is None and end is None:
        return night_of(night or last_night(now))
    if night is not None:
        raise click.UsageError("--night is a period of its own: leave out --from and --to")
    return chosen_period(begin, end, now)


def _file_name(period: Period) -> str:
    from crykit_app.report.period import local

    if period.night is not None:
        return f"crykit-night-{period.night}.html"
    return f"crykit-{local(period.begin):%Y-%m-%d-%H%M}.html"


def _write(document: bytes, out: str) -> None:
    from crykit.errors import InputError
    from crykit.files import write_aside

    if out == "-":
        sys.stdout.buffer.write(document)
        sys.stdout.flush()
        return
    try:
        with write_aside(out) as file:
            file.write(document)
    except OSError as error:
        raise InputError(
            f"cannot write the report to {out} ({error.strerror or error}); name another file "
            "with --out"
        ) from error
    click.echo(f"wrote {out}", err=True)
