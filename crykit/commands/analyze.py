"""`crykit analyze`: the cries in recordings."""

from __future__ import annotations

from datetime import datetime
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
    from crykit.commands.event_writer import EventWriter
    from crykit.listener import Listener


@click.command("analyze")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "audacity"]),
    default="jsonl",
    show_default=True,
    help="Event lines, a table, or an Audacity label track.",
)
@click.option("-o", "--output", metavar="OUT", help="Write here instead of standard output.")
@click.option("--start", metavar="ISO8601", help="When the recording began; gives each `start`.")
@model_options
@step_option
@gate_options
@pcm_options
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[str, ...],
    format_: str,
    output: str | None,
    start: str | None,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    step_ms: int | None,
    rate: int | None,
    channels: int,
    sample_format: str,
    **gate: float | None,
) -> None:
    """Find the cries in sound files; `-` is raw PCM on standard input.

    WAV, FLAC, Ogg, MP3 and more, at any rate, with any number of channels. Lines come out as the
    sound is read. A file that cannot be read is reported, the others are analysed all the same.
    """
    from crykit.commands.event_writer import EventWriter
    from crykit.commands.inputs import each_file, open_output
    from crykit.commands.options import open_model
    from crykit.offline import make_listener

    stream_start = _parse_start(start, files)
    bundle, engine = open_model(model, runtime, precision, step_ms)
    changes = {name: gate[name] for name, _ in GATE_OPTIONS}
    listener = make_listener(bundle, engine, bundle.manifest.gate.override(**changes))
    with open_output(output) as out:
        writer = EventWriter(out, format_, bundle.model_id, stream_start, len(files) > 1)

        def analyse(path: str) -> None:
            _analyse(path, listener, writer, rate, channels, sample_format)

        failed = each_file(files, analyse)
    if failed:
        ctx.exit(3)


def _analyse(
    path: str,
    listener: Listener,
    writer: EventWriter,
    rate: int | None,
    channels: int,
    sample_format: str,
) -> None:
    from crykit.audio import open_audio
    from crykit.offline import events_of

    opened = open_audio(
        path,
        sample_rate_hz=listener.sample_rate_hz,
        rate_hz=rate,
        channels=channels,
        pcm_format=sample_format,
    )
    with opened as source:
        for event in events_of(source, listener):
            writer.write(path, event)


def _parse_start(start: str | None, files: tuple[str, ...]) -> datetime | None:
    if start is None:
        return None
    if len(files) > 1:
        raise click.UsageError("--start is of one recording; got several files")
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        raise click.UsageError(
            f"--start {start!r}: expected a time such as 2026-11-20T03:12:44+01:00"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()
