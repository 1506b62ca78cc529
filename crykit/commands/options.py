"""Options that several commands share, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from crykit.bundle import Bundle
    from crykit.runtime import Runtime

F = TypeVar("F", bound=Callable[..., Any])

GATE_OPTIONS = (
    ("on_threshold", "A cry begins where its probability reaches this."),
    ("off_threshold", "A cry lasts while its probability stays at or over this."),
    ("smoothing_ms", "Time constant of the average taken over probabilities first; 0 for none."),
    ("min_on_ms", "Shortest cry that is reported."),
    ("min_off_ms", "Shortest pause that ends a run of crying."),
    ("merge_gap_ms", "Cries with a shorter pause between them are one."),
)


def _stacked(function: F, options: list[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def model_options(function: F) -> F:
    """Adds --model, --runtime, --precision as `model`, `runtime`, `precision`."""
    return _stacked(
        function,
        [
            click.option("--model", metavar="PATH|NAME", help="Model bundle; default: shipped."),
            click.option(
                "--runtime",
                type=click.Choice(["onnx", "executorch", "torch"]),
                help="What runs the model. Default: what `crykit bench --choose` chose, else onnx.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "fp16", "int8"]),
                help="Which of its versions. Default: the chosen one, else fp32.",
            ),
        ],
    )


def step_option(function: F) -> F:
    """Adds --step-ms as `step_ms`, None where it is not given."""
    return click.option(
        "--step-ms",
        type=click.IntRange(min=1),
        metavar="MS",
        help="Heard at a time, where the bundle has files for it. Default: the model's own.",
    )(function)


def gate_options(function: F) -> F:
    """Adds one option for each field of `GateSettings`; None where it is not given."""
    options: list[Callable[[F], F]] = [
        click.option(
            "--" + name.replace("_", "-"),
            type=float,
            metavar="P" if name.endswith("threshold") else "MS",
            help=f"{text} Default: the model's own.",
        )
        for name, text in GATE_OPTIONS
    ]
    return _stacked(function, options)


def pcm_options(function: F) -> F:
    """Adds --rate, --channels, --sample-format for raw PCM on standard input."""
    return _stacked(
        function,
        [
            click.option("--rate", type=int, metavar="HZ", help="Of raw PCM; default: 16000."),
            click.option("--channels", type=int, default=1, show_default=True, help="Of raw PCM."),
            click.option(
                "--sample-format",
                type=click.Choice(["s16le", "f32le"]),
                default="s16le",
                show_default=True,
                help="Of raw PCM.",
            ),
        ],
    )


def open_model(
    model: str | None, runtime: str | None, precision: str | None, step_ms: int | None = None
) -> tuple[Bundle, Runtime]:
    """The verified bundle and the runtime that the options of `model_options` name.

    Where they name none, it is the one that was chosen for this device.
    """
    from crykit.bundle import open_model_bundle
    from crykit.choice import way_to_run
    from crykit.runtime import open_runtime

    bundle = open_model_bundle(model)
    step = None if step_ms is None else step_ms * bundle.manifest.sample_rate_hz // 1000
    way = way_to_run(bundle, runtime, precision, step, lambda line: click.echo(line, err=True))
    return bundle, open_runtime(bundle, way.runtime, way.precision, way.threads, way.step_samples)
