"""`crykit listen`: the terminal app, or JSON lines."""

from __future__ import annotations

import math
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crykit.commands.options import (
    GATE_OPTIONS,
    gate_options,
    model_options,
    pcm_options,
    step_option,
)

if TYPE_CHECKING:
    from crykit_app.sources import Source


def parse_speed(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A number of times real time; `max` is infinity."""
    if value is None:
        return None
    if value == "max":
        return math.inf
    try:
        speed = float(value)
    except ValueError:
        speed = math.nan
    if not (speed > 0 and math.isfinite(speed)):
        raise click.BadParameter(f"expected 'max' or a number over 0, got {value!r}", ctx, param)
    return speed


@click.command("listen")
@click.option("--headless", is_flag=True, help="JSON lines on standard output, no screen.")
@click.option("--input", "input_", metavar="FILE|-", help="Replay a sound file, or raw PCM.")
@click.option(
    "--speed",
    callback=parse_speed,
    metavar="N|max",
    help="Of a replayed file, times real time; default 1.",
)
@click.option("--start", metavar="ISO8601", help="When the file was recorded; gives each `start`.")
@click.option("--device", metavar="NAME|N", help="Microphone; see: crykit devices.")
@click.option("--no-store", is_flag=True, help="Do not write the event log.")
@click.option(
    "--data-dir",
    metavar="FOLDER",
    help="Folder of the event log; default: CRYKIT_DATA_DIR, else the user's data folder.",
)
@model_options
@step_option
@gate_options
@pcm_options
def command(
    headless: bool,
    input_: str | None,
    speed: float | None,
    start: str | None,
    device: str | None,
    no_store: bool,
    data_dir: str | None,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    step_ms: int | None,
    rate: int | None,
    channels: int,
    sample_format: str,
    **gate: float | None,
) -> None:
    """Listen to the microphone, in a terminal app or as JSON lines (the default when piped).

    Events are also kept in the event log; see `crykit events` and `crykit report`. Ctrl-C, q or
    SIGTERM close a cry that goes on and end in good order. This is not a medical device.
    """
    from crykit.commands.options import open_model
    from crykit_app.run import run_app, run_headless
    from crykit_app.store import EventStore, default_path

    source = _source(input_, speed, start, device, rate, channels, sample_format)
    bundle, engine = open_model(model, runtime, precision, step_ms)
    changes = {name: gate[name] for name, _ in GATE_OPTIONS}
    run = run_headless if headless or input_ == "-" or not _has_screen() else run_app
    run(
        source,
        bundle=bundle,
        runtime=engine,
        gate=bundle.manifest.gate.override(**changes),
        store=None if no_store else EventStore(default_path(data_dir)),
    )


def _source(
    input_: str | None,
    speed: float | None,
    start: str | None,
    device: str | None,
    rate: int | None,
    channels: int,
    sample_format: str,
) -> Source:
    from crykit_app.sources import FileSource, MicrophoneSource, PcmSource

    if input_ is not None and device is not None:
        raise click.UsageError("--device is a microphone, --input takes its place: give one")
    if input_ in (None, "-") and (speed is not None or start is not None):
        raise click.UsageError("--speed and --start are of a replayed file: give --input FILE")
    if input_ is None:
        return MicrophoneSource(device)
    if input_ == "-":
        return PcmSource(rate_hz=rate, channels=channels, pcm_format=sample_format)
    return FileSource(Path(input_), speed=speed or 1.0, started_at=_parse_start(start))


def _parse_start(start: str | None) -> datetime | None:
    if start is None:
        return None
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        raise click.UsageError(
            f"--start {start!r}: expected a time such as 2026-11-20T03:12:44+01:00"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()


def _has_screen() -> bool:
    """Whether there is a terminal to draw on and to read keys from."""
    return sys.stdout.isatty() and sys.stdin.isatty()
