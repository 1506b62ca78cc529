"""`crykit embed`: what the model makes of a recording, as vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from crykit.commands.options import model_options, pcm_options, step_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crykit.bundle import EncoderBundle

    Float32 = NDArray[np.float32]

MAX_ENCODER_S = 600


class Embedded(NamedTuple):
    """What a file became: (n,), (frames, size) and (frames,)."""

    scene: Float32
    frames: Float32
    times_ms: NDArray[np.floating[Any]]


Embedder = Callable[["Iterable[Float32]"], Embedded]


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
    paths          (files,)        as they were given
    scene          (files, n)      of each file: an encoder's own embedding; of a
                                   detector mean, then maximum, over the frames
    embedding      (frames, size)  of all files, one after the other
    timestamps_ms  (frames,)       in its file, the end of each frame; of an
                                   encoder, the centre of what it heard
    file_index     (frames,)       the file of each frame
    model          ()              the model's name and digest

    An encoder hears each file as a whole, ten minutes at most.
    """
    import numpy as np

    from crykit.audio import open_audio
    from crykit.bundle import EncoderBundle, open_any, resolve_model
    from crykit.commands.inputs import each_file, open_output

    bundle = open_any(resolve_model(model))
    if isinstance(bundle, EncoderBundle):
        embedder = _encoder(bundle, runtime, precision, step_ms)
    else:
        embedder = _detector(model, runtime, precision, step_ms)
    rate_hz = bundle.manifest.sample_rate_hz
    done: list[tuple[str, Embedded]] = []

    def embed(path: str) -> None:
        opened = open_audio(
            path,
            sample_rate_hz=rate_hz,
            rate_hz=rate,
            channels=channels,
            pcm_format=sample_format,
        )
        with opened as source:
            done.append((path, embedder(source)))

    with open_output(output) as out:
        failed = each_file(files, embed)
        np.savez(
            out,
            paths=np.array([path for path, _ in done]),
            scene=np.stack([e.scene for _, e in done]),
            embedding=np.concatenate([e.frames for _, e in done]),
            timestamps_ms=np.concatenate([e.times_ms for _, e in done]),
            file_index=np.repeat(np.arange(len(done)), [len(e.frames) for _, e in done]),
            model=np.array(bundle.model_id),
        )
    if failed:
        ctx.exit(3)


def _detector(
    model: str | None, runtime: str | None, precision: str | None, step_ms: int | None
) -> Embedder:
    import numpy as np

    from crykit.commands.options import open_model
    from crykit.offline import frames_of, make_listener, scene_embedding

    bundle, engine = open_model(model, runtime, precision, step_ms)
    listener = make_listener(bundle, engine)
    frame_ms = 1000.0 * bundle.manifest.frame_samples / bundle.manifest.sample_rate_hz

    def embed(source: Iterable[Float32]) -> Embedded:
        _, frames = frames_of(source, listener)
        return Embedded(scene_embedding(frames), frames, np.arange(1, len(frames) + 1) * frame_ms)

    return embed


def _encoder(
    bundle: EncoderBundle, runtime: str | None, precision: str | None, step_ms: int | None
) -> Embedder:
    import numpy as np

    from crykit.errors import InputError, UsageError
    from crykit.runtime.clip import open_clip_model

    manifest = bundle.manifest
    if step_ms is not None:
        raise UsageError(
            f"{manifest.name} is an encoder, which hears whole files and has no state to step "
            "with: leave --step-ms out"
        )
    model = open_clip_model(bundle, runtime or "onnx", precision or "fp32")

    def embed(source: Iterable[Float32]) -> Embedded:
        heard: list[Float32] = []
        n_samples = 0
        for block in source:
            heard.append(block)
            n_samples += len(block)
            if n_samples > MAX_ENCODER_S * manifest.sample_rate_hz:
                raise InputError(
                    f"expected at most {MAX_ENCODER_S // 60} minutes for an encoder, which hears "
                    "a file as a whole: cut it"
                )
        outputs = model.run(np.concatenate(heard)[np.newaxis])
        frames = outputs["frames"][0]
        centres = manifest.centre_samples + manifest.hop_samples * np.arange(len(frames))
        return Embedded(outputs["embedding"][0], frames, 1000.0 * centres / manifest.sample_rate_hz)

    return embed
