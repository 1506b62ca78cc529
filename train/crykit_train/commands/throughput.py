"""`crykit train throughput`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from crykit_train.commands import need_torch


@click.command("throughput")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME[:key=n,..]",
    help="Several may be given; all of them unless told.",
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Audio to load; none leaves loading out."
)
@click.option("--clips", default=256, show_default=True, help="How many of its train clips.")
@click.option("--batch", default=8, show_default=True, help="Windows a step.")
@click.option("--window", "window_s", default=0.95, show_default=True, help="Seconds.")
@click.option("--seconds", default=3.0, show_default=True, help="Time for each figure.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--precision",
    default="32-true",
    show_default=True,
    type=click.Choice(["32-true", "bf16-mixed"]),
)
@click.option("--threads", default=0, help="Of torch on the CPU; 0 leaves its choice.")
@click.option("--peak-tflops", default=0.0, help="Of the device, for its utilisation.")
@click.option("--leaky", is_flag=True, help="Take a manifest whose groups straddle splits.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="JSON file; stdout gets it too.")
def command(
    encoders: tuple[str, ...],
    manifest: Path | None,
    clips: int,
    threads: int,
    leaky: bool,
    out: Path | None,
    **work: Any,
) -> None:
    """Measure seconds of audio a second for each encoder."""
    need_torch()
    import torch

    from crykit.files import write_aside
    from crykit.nn.encoders import ENCODERS
    from crykit_train.progress import progress_bar
    from crykit_train.throughput import Work, build_named, measure

    if threads:
        torch.set_num_threads(threads)
    chosen = [build_named(text) for text in encoders or ENCODERS]
    plan = Work(**work)
    _check(plan.device, plan.batch, plan.window_s, plan.seconds)
    sources: dict[int, Any] = {}
    cuda = plan.device.startswith("cuda")
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(plan.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": plan.precision,
        "leaky": leaky,
        "encoders": [],
    }
    with progress_bar("measuring") as update:
        for number, encoder in enumerate(chosen):
            torch.manual_seed(1)
            if manifest is not None and encoder.n_mels not in sources:
                sources[encoder.n_mels] = _source(manifest, clips, encoder.n_mels, plan, leaky)
            source = sources.get(encoder.n_mels)
            report["encoders"].append(measure(encoder, plan, source.batch if source else None))
            if out is not None:  # after each, so that a kill loses none
                with write_aside(out) as file:
                    file.write((json.dumps(report, indent=2) + "\n").encode())
            update(number + 1, len(chosen), float("nan"))
    click.echo(json.dumps(report, indent=2))


def _check(device: str, batch: int, window_s: float, seconds: float) -> None:
    import torch

    from crykit.errors import UsageError

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {str(error).splitlines()[0]}") from None
    if batch < 2 or window_s <= 0 or seconds < 0:
        raise UsageError(
            f"expected a batch of 2 or more, a window and a time above 0, got {batch}, "
            f"{window_s:g} and {seconds:g}"
        )


def _source(manifest: Path, most: int, n_mels: int, plan: Any, leaky: bool) -> Any:
    import random

    from crykit.dataset import read_manifest
    from crykit_train.ssl.corpus import LogMelCorpus, select_clips, window_frames
    from crykit_train.ssl.recipes import DataRecipe
    from crykit_train.ssl.sources import CorpusSource

    found = select_clips(read_manifest(manifest, leaky=leaky), DataRecipe())
    picked = random.Random(1).sample(found, min(most, len(found)))
    return CorpusSource(LogMelCorpus(picked, n_mels), window_frames(plan.window_s), plan.batch)
