"""`crykit export`: a trained model becomes one verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crykit_export.source import TrainedModel


def _choices(value: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """A comma-separated option as a tuple without repeats."""
    from crykit.errors import UsageError

    chosen = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    wrong = [name for name in chosen if name not in known]
    if wrong or not chosen:
        raise UsageError(f"{option}: expected some of {', '.join(known)}; got {value!r}")
    return chosen


def _steps_samples(value: str) -> tuple[int, ...]:
    """`--steps` in ms as samples."""
    from crykit.nn.frontend import SAMPLE_RATE_HZ
    from crykit_export.golden import STEPS_MS

    known = tuple(str(step) for step in STEPS_MS)
    return tuple(int(s) * SAMPLE_RATE_HZ // 1000 for s in _choices(value, known, "--steps"))


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "runtimes",
    default="onnx,executorch",
    show_default=True,
    help="Runtimes, separated by commas.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="P,...",
    help="Precisions, separated by commas [default: fp32,int8]; "
    "for kits one [default: int8, or fp32 where there is none].",
)
@click.option(
    "--steps",
    metavar="MS,...",
    help="What is heard at a time, separated by commas: a set of files for each [default: 160].",
)
@click.option(
    "--forms",
    metavar="step[,clip]",
    help="step: stateful, for streams; clip: whole recordings [default: step; encoders: clip].",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="A manifest: int8 is calibrated on its train split, and its val split shows what fp16 "
    "and int8 cost.",
)
@click.option(
    "--streams",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Held-out streams, NAME.flac beside NAME.csv, that show what fp16 and int8 cost.",
)
@click.option(
    "--quantise",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="A recipe that names the blocks which int8 leaves in floating point.",
)
@click.option(
    "--sensitivity",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Export nothing: measure what each block loses in int8, as a table and a picture in DIR.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="NAME.cry",
    help="The bundle to write [default: the model's name, here].",
)
@click.option("--name", help="Name of the model, if not the one its run gave it.")
@click.option("--version", "version_", metavar="VERSION", help="Version of the model.")
@click.option(
    "--gate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="JSON",
    help="Event gate settings, in place of the run's.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="JSON",
    help="Further fields of model.json (evidence, metrics, clip ...) to put over it.",
)
@click.option(
    "--kit",
    "kits",
    metavar="KIT,...",
    help="Make phone kits of a bundle instead: web, android, ios, separated by commas.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the kits go: DIR/web, DIR/android, DIR/ios.",
)
@click.option("--force", is_flag=True, help="Replace the bundle or the kits already there.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of calibration clips.")
def command(
    model: Path,
    runtimes: str,
    precisions: str | None,
    steps: str | None,
    forms: str | None,
    calibration: Path | None,
    streams: Path | None,
    quantise: Path | None,
    sensitivity: Path | None,
    output: Path | None,
    name: str | None,
    version_: str | None,
    gate: Path | None,
    record: Path | None,
    kits: str | None,
    out: Path | None,
    force: bool,
    seed: int,
) -> None:
    """Export MODEL, a training run's folder or a bundle, as a bundle NAME.cry.

    Every artefact is replayed in its own runtime and must agree with torch; if one does not,
    nothing is written and the exit code is 1.

    With --kit a bundle becomes projects for phones, each with golden sound and what it must give.
    """
    if kits is not None or out is not None:
        return _write_kits(model, kits, precisions, out, force)
    _need_extra()
    import torch

    from crykit.errors import InputError, UsageError
    from crykit_export.assemble import FORMS, PRECISIONS, RUNTIMES, ExportPlan, export_bundle
    from crykit_export.encoders import is_encoder
    from crykit_export.quantisation import read_quantise_recipe
    from crykit_export.source import load_model, override

    # A step is too small to share out: a second thread only waits for the first.
    torch.set_num_threads(1)
    chosen_runtimes = _choices(runtimes, RUNTIMES, "--to")
    if is_encoder(model):
        asked = {"--precision": precisions, "--steps": steps, "--forms": forms}
        plan = {"name": name, "version": version_, "out": output, "replace": force}
        return _export_encoder(model, chosen_runtimes, asked, plan)
    chosen_precisions = _choices(precisions or "fp32,int8", PRECISIONS, "--precision")
    steps_samples = _steps_samples(steps or "160")
    chosen_forms = _choices(forms or "step", FORMS, "--forms")
    if "step" not in chosen_forms:
        raise UsageError("--forms: a detector needs its step form; give step or step,clip")
    if calibration is not None and not calibration.exists():
        raise InputError(f"{calibration}: no such manifest to calibrate on")
    trained = override(load_model(model), record, gate, {"name": name, "version": version_})
    if sensitivity is not None:
        return _measure_sensitivity(trained, calibration, streams, sensitivity, force, seed)
    plan = ExportPlan(
        out=output or Path(f"{trained.record.name}.cry"),
        runtimes=chosen_runtimes,
        precisions=chosen_precisions,
        steps_samples=steps_samples,
        forms=chosen_forms,
        calibration=calibration,
        streams=streams,
        keep_float=read_quantise_recipe(quantise, trained.student) if quantise else (),
        replace=force,
        seed=seed,
        say=_say,
    )
    click.echo(export_bundle(trained, plan))


def _measure_sensitivity(
    model: TrainedModel,
    calibration: Path | None,
    streams: Path | None,
    folder: Path,
    force: bool,
    seed: int,
) -> None:
    """`--sensitivity`: what each block loses, and nothing exported."""
    import importlib.util

    from crykit.errors import MissingPart
    from crykit_export.held_out import read_held_out
    from crykit_export.sensitivity import measure_sensitivity
    from crykit_export.sensitivity_report import write_report
    from crykit_export.staging import staged_folder

    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPart("--sensitivity draws with matplotlib: pip install 'crykit[train]'")
    truth = read_held_out(calibration, streams, "a block's loss")
    with staged_folder(folder, replace=force) as stage:
        write_report(measure_sensitivity(model, truth, _say, seed), stage)
    click.echo(folder)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _export_encoder(
    folder: Path, runtimes: tuple[str, ...], asked: dict[str, str | None], plan: dict[str, Any]
) -> None:
    """An encoder has one form and one precision; anything else that was asked for is refused."""
    from crykit.errors import UsageError
    from crykit.nn.pretrained import load_pretrained
    from crykit_export.encoders import EncoderPlan, export_encoder

    offered = {"--precision": "fp32", "--forms": "clip", "--steps": None}
    for option, value in asked.items():
        if value not in (None, offered[option]):
            raise UsageError(
                f"{folder} is an encoder, which has no state to step with: it exports in fp32 for "
                f"whole clips; leave {option} {value} out"
            )
    pretrained = load_pretrained(folder)
    out = plan.pop("out") or Path(f"{plan['name'] or f'cry-encoder-{pretrained.encoder.name}'}.cry")

    click.echo(
        export_encoder(pretrained, EncoderPlan(out=out, runtimes=runtimes, say=_say, **plan))
    )


def _write_kits(
    model: Path, kits: str | None, precision: str | None, out: Path | None, force: bool
) -> None:
    """`--kit`: needs no more than what runs the model."""
    from crykit.bundle import resolve_model
    from crykit.errors import UsageError
    from crykit_export.kits import KITS, open_bundle, write_kits

    if kits is None or out is None:
        raise UsageError("kits need both --kit KIT,... and --out DIR")
    names = _choices(kits, tuple(KITS), "--kit")
    bundle = open_bundle(resolve_model(model))

    for folder in write_kits(bundle, names, out, precision, force, _say):
        click.echo(folder)


def _need_extra() -> None:
    import importlib.util

    from crykit.errors import MissingPart

    absent = [
        module
        for module in ("torch", "onnx", "onnxscript", "executorch", "torchao")
        if importlib.util.find_spec(module) is None
    ]
    if absent:
        raise MissingPart(f"export needs {', '.join(absent)}: pip install 'crykit[export]'")
