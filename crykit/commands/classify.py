"""`crykit classify`: one line a recording."""

from __future__ import annotations

import click

from crykit.commands.options import model_options, pcm_options, step_option


@click.command("classify")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl"]),
    default="jsonl",
    show_default=True,
    help="One JSON object a line.",
)
@click.option("-o", "--output", metavar="OUT", help="Write here instead of standard output.")
@model_options
@step_option
@pcm_options
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[str, ...],
    format_: str,
    output: str | None,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    step_ms: int | None,
    rate: int | None,
    channels: int,
    sample_format: str,
) -> None:
    """Say of each sound file how probably it holds a cry.

    The probability is pooled over the frames of the whole file. Reasons for a cry are null: no
    model has shown that it can tell them for a baby that it does not know.
    """
    from crykit.audio import open_audio
    from crykit.commands.inputs import each_file, open_output
    from crykit.commands.options import open_model
    from crykit.events import NO_REASONS, SCHEMA_VERSION, encode_line
    from crykit.offline import clip_probability, frames_of, make_listener

    bundle, engine = open_model(model, runtime, precision, step_ms)
    listener = make_listener(bundle, engine)
    with open_output(output) as out:

        def classify(path: str) -> None:
            opened = open_audio(
                path,
                sample_rate_hz=listener.sample_rate_hz,
                rate_hz=rate,
                channels=channels,
                pcm_format=sample_format,
            )
            with opened as source:
                probability, _ = frames_of(source, listener)
                line = {
                    "schema_version": SCHEMA_VERSION,
                    "path": path,
                    "duration_s": round(source.duration_s, 3),
                    "cry_probability": round(
                        clip_probability(probability, bundle.manifest.clip), 6
                    ),
                    "reasons": NO_REASONS,
                    "model": bundle.model_id,
                }
            out.write(encode_line(line))
            out.flush()

        failed = each_file(files, classify)
    if failed:
        ctx.exit(3)
