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
    """Measure models on this device, or compare two reports.

    `crykit bench [MODEL]...` alone measures; its options: `crykit bench run --help`.
    """


@command.command("compare")
@click.argument("before", type=PATH, metavar="BEFORE.json")
@click.argument("after", type=PATH, metavar="AFTER.json")
def compare(before: Path, after: Path) -> None:
    """Tell what changed between two reports of this bench, and what is noise.

    Reports of different machines are compared in size and accuracy alone.
    """
    from rich.console import Console

    from crykit_bench.compare import compare_reports, print_changes, read_report

    changes = compare_reports(read_report(before), read_report(after))
    console = Console()
    print_changes(changes, console if console.is_terminal else Console(width=120))


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
    default=60.0,
    metavar="SECONDS",
    show_default=True,
    help="End timing then, although a median still moves.",
)
@click.option("--core", default=0, show_default=True, help="First CPU that a row is pinned to.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the order of rows in each round.")
@click.option("--quick", is_flag=True, help="A few rounds of timing, one cold start.")
@click.option(
    "--choose", is_flag=True, help="Choose what this device should run MODEL with, and keep it."
)
@click.option(
    "--need",
    type=click.Choice(["cheap", "small"]),
    default="cheap",
    show_default=True,
    help="With --choose: the least CPU time, or the smallest files.",
)
@click.option(
    "--max-bytes", type=click.IntRange(1), help="With --choose: files of at most so many."
)
@click.option(
    "--max-step-ms",
    type=click.IntRange(1),
    help="With --choose: the longest step [default: the model's own].",
)
@click.option(
    "--json",
    "json_out",
    metavar="OUT",
    help="Write the report as JSON; - for stdout, with the table on stderr.",
)
@click.option("--csv", "csv_out", type=PATH, metavar="OUT", help="Write the rows as CSV.")
@click.option("--html", "html_out", type=PATH, metavar="OUT", help="Write a page with plots.")
@click.option("--markdown", "markdown_out", type=PATH, metavar="OUT", help="Write a page for docs.")
def run(
    models: tuple[str, ...],
    data: Path | None,
    streams: Path | None,
    rows: str | None,
    core: int,
    threads: int,
    choose: bool,
    need: str,
    max_bytes: int | None,
    max_step_ms: int | None,
    yamnet: Path | None,
    json_out: str | None,
    csv_out: Path | None,
    html_out: Path | None,
    markdown_out: Path | None,
    **timing: Any,
) -> None:
    """Measure MODELs (names or bundles; the shipped one) on every runtime installed here.

    Each row runs in a process of its own and must agree with torch before it is timed; the exit
    code is 1 if one does not. With --choose, `crykit listen` and the other commands run what was
    chosen from then on, unless their options say otherwise.
    """
    from crykit.bundle import open_any, resolve_model
    from crykit_bench.accuracy import ClipTruth, StreamTruth
    from crykit_bench.choose import Need
    from crykit_bench.gate import candidates
    from crykit_bench.outputs import Outputs
    from crykit_bench.rows import plan_rows

    _check_core(core, threads)
    if not choose and (need != "cheap" or max_bytes or max_step_ms):
        raise click.UsageError("--need, --max-bytes and --max-step-ms are of --choose: add it")
    outputs = Outputs(json_out, csv_out, html_out, markdown_out)
    outputs.check()
    bundles = [open_any(resolve_model(model)) for model in models or (None,)]
    kinds = _kinds(rows)
    entries = (
        candidates(bundles, kinds, max_step_ms) if choose else plan_rows(bundles, kinds, yamnet)
    )
    plan = {
        "entries": entries,
        "clips": ClipTruth.read(data) if data else None,
        "streams": StreamTruth.read(streams) if streams else None,
        "core": core,
        "threads": threads,
        "command": command_line(click.get_current_context()),
        **timing,
    }
    _measure(plan, outputs, Need(need, max_bytes) if choose else None)


def _measure(plan: dict[str, Any], outputs: Any, need: Any) -> None:
    """Run the bench, then write what it found; with a need, choose and keep the choice as well."""
    import tempfile

    from rich.console import Console

    from crykit_bench.conditions import busy
    from crykit_bench.gate import choose
    from crykit_bench.progress import progress_on
    from crykit_bench.run import Bench

    if busy():
        click.echo("other programs are busy: wall times will read high", err=True)
    with (
        tempfile.TemporaryDirectory(prefix="crykit-bench-") as scratch,
        progress_on(Console(stderr=True)) as progress,
    ):
        bench = Bench(scratch=Path(scratch), progress=progress, **plan)
        report = bench.run() if need is None else choose(bench, need)
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
            words.append(f"{value:g}" if isinstance(value, float) else Path(str(value)).name)
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

    # A version that fails is no fault where another one was chosen.
    if report.choice is not None:
        return
    bad = [row.id for row in report.rows if row.status in ("disagrees", "failed")]
    if bad:
        raise FaultFound(f"{', '.join(bad)}: see the remarks under the table")
