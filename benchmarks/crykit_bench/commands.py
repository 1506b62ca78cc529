"""`crykit bench`: what the quantised student costs and keeps, against full precision, here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("bench")
@click.argument("model", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Manifest whose test split gives clip AUC.",
)
@click.option(
    "--streams",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Recordings NAME.flac with truth NAME.csv, for event scores.",
)
@click.option(
    "--json",
    "json_out",
    metavar="OUT",
    help="Write the report as JSON; - for stdout, with the table on stderr.",
)
@click.option("--runtimes", help="Rows, separated by commas [default: all].")
@click.option("--core", default=0, show_default=True, help="CPU that each row is pinned to.")
@click.option("--quick", is_flag=True, help="Fewer rounds of timing.")
def command(
    model: str | None,
    data: Path | None,
    streams: Path | None,
    json_out: str | None,
    runtimes: str | None,
    core: int,
    quick: bool,
) -> None:
    """Measure MODEL (the shipped one, a name or a bundle) on every runtime installed here.

    Each row runs in a process of its own and must agree with torch before it is timed; the exit
    code is 1 if one does not.
    """
    import tempfile

    from crykit.bundle import open_model_bundle
    from crykit_bench.accuracy import ClipTruth, StreamTruth
    from crykit_bench.conditions import busy
    from crykit_bench.run import Bench

    row_ids = _row_ids(runtimes)
    _check_core(core)
    bundle = open_model_bundle(model)
    clips = ClipTruth.read(data) if data else None
    truth = StreamTruth.read(streams) if streams else None
    if busy():
        click.echo("other programs are busy: wall times will read high", err=True)
    with tempfile.TemporaryDirectory(prefix="crykit-bench-") as scratch:
        report = Bench(
            bundle=bundle,
            row_ids=row_ids,
            scratch=Path(scratch),
            clips=clips,
            streams=truth,
            quick=quick,
            core=core,
            say=lambda line: click.echo(line, err=True),
        ).run()
    _write(report, json_out)
    _raise_faults(report)


def _row_ids(runtimes: str | None) -> list[str]:
    from crykit.errors import UsageError
    from crykit_bench.run import ROW_IDS

    if runtimes is None:
        return list(ROW_IDS)
    chosen = list(dict.fromkeys(part.strip() for part in runtimes.split(",") if part.strip()))
    if not chosen or not set(chosen) <= set(ROW_IDS):
        raise UsageError(f"--runtimes: expected some of {', '.join(ROW_IDS)}; got {runtimes!r}")
    return chosen


def _check_core(core: int) -> None:
    import os
    import sys

    from crykit.errors import UsageError

    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        if core not in allowed:
            known = ", ".join(str(c) for c in allowed)
            raise UsageError(f"--core: expected one of {known}; got {core}")


def _write(report: Any, json_out: str | None) -> None:
    import msgspec
    from rich.console import Console

    from crykit.files import write_aside
    from crykit_bench.table import print_table

    # A table cut off at 80 columns would lose its numbers, so a pipe gets it whole.
    console = Console(stderr=json_out == "-")
    print_table(report, console if console.is_terminal else Console(file=console.file, width=160))
    if json_out is None:
        return
    document = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    if json_out == "-":
        click.echo(document, nl=False)
        return
    with write_aside(json_out) as file:
        file.write(document)


def _raise_faults(report: Any) -> None:
    from crykit.errors import FaultFound

    bad = [row.id for row in report.rows if row.status in ("disagrees", "failed")]
    if bad:
        raise FaultFound(f"{', '.join(bad)}: see the remarks under the table")
