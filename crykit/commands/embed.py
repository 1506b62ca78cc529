"""`crykit embed`: what the model makes of a recording, as vectors."""

from __future__ import annotations

import click

from crykit.commands.options import model_options, pcm_options, step_option


@click.command("embed")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", required=True, metavar="OUT.npz", help="Where the vectors go.")
@model_options
@step_option
@pcm_options
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[str, ...],
    output: str,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    step_ms: int | None,
    rate: int | None,
    channels: int,
    sample_format: str,
) -> None:
    """Write scene and timestamp embeddings of sound files to an NPZ file.

    \b
    paths          (files,)            as they were given
    scene          (files, 2 * size)   mean, then maximum, over the frames
    embedding      (frames, size)      of all files, one after the other
    timestamps_ms  (frames,)           the end of each frame in its file
    file_index     (frames,)           the file of each frame
    model          ()                  the model's name and digest
    """
    import numpy as np

    from crykit.audio import open_audio
    from crykit.commands.inputs import each_file, open_output
    from crykit.commands.options import open_model
    from crykit.offline import frames_of, make_listener, scene_embedding

    bundle, engine = open_model(model, runtime, precision, step_ms)
    listener = make_listener(bundle, engine)
    frame_ms = 1000.0 * bundle.manifest.frame_samples / bundle.manifest.sample_rate_hz
    done: list[tuple[str, np.ndarray]] = []

    def embed(path: str) -> None:
        opened = open_audio(
            path,
            sample_rate_hz=listener.sample_rate_hz,
            rate_hz=rate,
            channels=channels,
            pcm_format=sample_format,
        )
        with opened as source:
            done.append((path, frames_of(source, listener)[1]))

    with open_output(output) as out:
        failed = each_file(files, embed)
        counts = [len(frames) for _, frames in done]
        np.savez(
            out,
            paths=np.array([path for path, _ in done]),
            scene=np.stack([scene_embedding(frames) for _, frames in done]),
            embedding=np.concatenate([frames for _, frames in done]),
            timestamps_ms=np.concatenate([np.arange(1, n + 1) * frame_ms for n in counts]),
            file_index=np.repeat(np.arange(len(done)), counts),
            model=np.array(bundle.model_id),
        )
    if failed:
        ctx.exit(3)
