"""`crykit bench`: what the quantised student costs and keeps, against full precision, here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


class DefaultGroup(click.Group):
    """A group whose own arguments are those of `run`, unless they begin with another command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not (args and (args[0] in self.commands or args[0] in ctx.help_option_names)):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("bench", cls=DefaultGroup)
def command() -> None:
    """Measure models on this device: `crykit bench [run] [MODEL]...`, or compare two reports."""


@command.command("run")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--data", type=PATH, metavar="CSV", help="Manifest; its test split gives clip AUC.")
@click.option(
    "--streams", type=PATH, metavar="DIR", help="NAME.flac with truth NAME.csv, for event scores."
)
@click.option("--yamnet", type=PATH, metavar="FILE", help="yamnet.tflite, as a peer.")
@click.option("--rows", "--runtimes", "rows", help="Rows, separated by commas [default: all].")
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(min=1.0),
    metavar="SECONDS",
    help="End timing then, although a median still moves [default: 60].",
)
@click.option("--core", default=0, show_default=True, help="First CPU that a row is pinned to.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the order of rows in each round.")
@click.option("--quick", is_flag=True, help="A few rounds of timing, one cold start.")
@click.option(
    "--json",
    "json_out",
    metavar="OUT",
    help="Write the report as JSON; - for stdout, with the table on stderr.",
)
@click.option("--csv", "csv_out", type=PATH, metavar="OUT", help="Write the rows as CSV.")
def run(
    models: tuple[str, ...],
    data: Path | None,
    streams: Path | None,
    yamnet: Path | None,
    rows: str | None,
    budget_s: float | None,
    core: int,
    threads: int,
    seed: int,
    quick: bool,
    json_out: str | None,
    csv_out: Path | None,
) -> None:
    """Measure MODELs (names or bundles; the shipped one) on every runtime installed here.

    Each row runs in a process of its own and must agree with torch before it is timed; the exit
    code is 1 if one does not.
    """
    import tempfile

    from rich.console import Console

    from crykit.bundle import open_model_bundle
    from crykit_bench.accuracy import ClipTruth, StreamTruth
    from crykit_bench.conditions import busy
    from crykit_bench.outputs import Outputs
    from crykit_bench.progress import progress_on
    from crykit_bench.rows import plan_rows
    from crykit_bench.run import DEFAULT_BUDGET_S, Bench

    _check_core(core, threads)
    outputs = Outputs(json_out, csv_out)
    outputs.check()
    bundles = [open_model_bundle(model) for model in models or (None,)]
    entries = plan_rows(bundles, _kinds(rows), yamnet)
    clips = ClipTruth.read(data) if data else None
    truth = StreamTruth.read(streams) if streams else None
    if busy():
        click.echo("other programs are busy: wall times will read high", err=True)
    with (
        tempfile.TemporaryDirectory(prefix="crykit-bench-") as scratch,
        progress_on(Console(stderr=True)) as progress,
    ):
        report = Bench(
            entries=entries,
            scratch=Path(scratch),
            clips=clips,
            streams=truth,
            core=core,
            threads=threads,
            budget_s=budget_s or DEFAULT_BUDGET_S,
            quick=quick,
            seed=seed,
            command=command_line(click.get_current_context()),
            progress=progress,
        ).run()
    outputs.write(report)
    _raise_faults(report)


def command_line(ctx: click.Context) -> str:
    """The command as it can be told to others: of a path, the last name alone."""
    words = ["crykit", "bench", *(Path(model).name for model in ctx.params["models"])]
    for option in ctx.command.params:
        value = ctx.params.get(option.name or "")
        if not isinstance(option, click.Option) or value in (None, False, option.default):
            continue
        words.append(option.opts[0])
        if not option.is_flag:
            words.append(Path(value).name if isinstance(value, Path) else str(value))
    return " ".join(words)


def _kinds(rows: str | None) -> list[str] | None:
    if rows is None:
        return None
    return list(dict.fromkeys(part.strip() for part in rows.split(",") if part.strip()))


def _check_core(core: int, threads: int) -> None:
    import os

    from crykit.errors import UsageError

    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if not set(range(core, core + threads)) <= allowed:
        known = ", ".join(str(c) for c in sorted(allowed))
        wanted = str(core) if threads == 1 else f"{core} with {threads} threads"
        raise UsageError(f"--core: expected one of {known}; got {wanted}")


def _raise_faults(report: Any) -> None:
    from crykit.errors import FaultFound

    bad = [row.id for row in report.rows if row.status in ("disagrees", "failed")]
    if bad:
        raise FaultFound(f"{', '.join(bad)}: see the remarks under the table")
