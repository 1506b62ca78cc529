"""From a trained model to a verified bundle: write aside, replay every artefact, rename."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.torch import save_file

from crykit.bundle import WEIGHTS_NAME, write_manifest
from crykit.errors import UsageError
from crykit.manifest import Artefact, ClipArtefact, GraphSpec, Tolerance
from crykit.nn.frontend import HOP_SAMPLES, N_MELS, SAMPLE_RATE_HZ, STEP_SAMPLES
from crykit.nn.student import FRAME_SAMPLES
from crykit_export.calibration import Audio, calibration_audio, calibration_steps
from crykit_export.clips import student_clip, write_clips
from crykit_export.fp16 import write_onnx_fp16
from crykit_export.gatecheck import check_artefacts
from crykit_export.golden import read_golden_expected, read_golden_input, write_golden
from crykit_export.graphs import ExportGraph, build_graphs
from crykit_export.held_out import read_held_out
from crykit_export.int8 import write_executorch_int8, write_onnx_int8
from crykit_export.model_card import CARD_NAME, model_card
from crykit_export.onnx_file import detector_facts, finish_onnx
from crykit_export.source import TrainedModel
from crykit_export.staging import staged_folder
from crykit_export.to_executorch import write_executorch
from crykit_export.to_onnx import write_onnx

RUNTIMES = ("onnx", "executorch")
PRECISIONS = ("fp32", "fp16", "int8")
SMALLER = ("fp16", "int8")
# ONNX Runtime multiplies matrices faster than it transforms; ExecuTorch the other way round.
TRANSFORM = {"onnx": "matmul", "executorch": "fft"}
FORMS = ("step", "clip")
CLIP_PIECE_FRAMES = 60
SUFFIX = {"onnx": "onnx", "executorch": "pte"}
FP32_TOLERANCE = Tolerance(
    cry_probability_max_abs=1e-4,
    justification="The same numbers in another order of summation.",
)


@dataclass(frozen=True)
class ExportPlan:
    """What to export and where.

    Args:
        steps_samples: heard at a time; 160 ms is the manifest's own step where it is among them,
            else the first.
        forms: "step", and "clip" for a graph of whole clips beside it.
        calibration: a manifest, whose train split int8 is calibrated on and whose val split shows
            what fp16 and int8 cost.
        streams: a folder of held-out streams that shows it too.
        keep_float: blocks that int8 leaves in floating point.
        say: told each step, one line.
    """

    out: Path
    runtimes: Sequence[str] = RUNTIMES
    precisions: Sequence[str] = ("fp32", "int8")
    steps_samples: Sequence[int] = (STEP_SAMPLES,)
    forms: Sequence[str] = ("step",)
    calibration: Path | None = None
    streams: Path | None = None
    keep_float: Sequence[str] = ()
    replace: bool = False
    seed: int = 0
    say: Callable[[str], None] = field(default=lambda line: None)

    @property
    def step_samples(self) -> int:
        """The manifest's own step."""
        return STEP_SAMPLES if STEP_SAMPLES in self.steps_samples else self.steps_samples[0]


def export_bundle(model: TrainedModel, plan: ExportPlan) -> Path:
    """Write `plan.out` and return it.

    Raises:
        UsageError: a smaller precision without sound to measure it on, fp16 for another runtime
            than ONNX, or the target exists.
        FaultFound: an artefact does not agree with torch; nothing is written.
    """
    smaller = [p for p in plan.precisions if p in SMALLER]
    if "fp16" in smaller and "onnx" not in plan.runtimes:
        raise UsageError("fp16 is for onnx alone; give --to onnx")
    needed = " and ".join(smaller)
    held_out = read_held_out(plan.calibration, plan.streams, needed) if smaller else None
    audio: list[Audio] = []
    if "int8" in smaller and plan.calibration:
        audio = calibration_audio(plan.calibration, seed=plan.seed)
    with staged_folder(plan.out, replace=plan.replace) as stage:
        save_file(model.weights, stage / WEIGHTS_NAME)
        write_golden(model.student, stage)
        artefacts: list[Artefact] = []
        for runtime in plan.runtimes:
            for step in plan.steps_samples:
                artefacts += _write_artefacts(model, runtime, step, plan, stage, audio)
        for path in sorted(stage.glob("*.onnx")):
            _finish(model, artefacts, plan, path)
        fields = manifest_fields(model, artefacts, plan.step_samples)
        write_manifest(stage, fields)
        measured = check_artefacts(stage, artefacts, held_out, _made_by(model, plan), plan.say)
        fields = manifest_fields(model, measured, plan.step_samples)
        if "clip" in plan.forms:
            fields["clips"] = msgspec.to_builtins(_write_clips(model, plan, stage))
        card = model_card(fields, stage)
        (stage / CARD_NAME).write_text(card, encoding="utf-8")
        write_manifest(stage, fields)
        for path in stage.rglob("*"):  # some writers leave files that only their owner may read
            path.chmod(0o755 if path.is_dir() else 0o644)
    return plan.out


def _made_by(model: TrainedModel, plan: ExportPlan) -> dict[str, str]:
    """How a smaller precision came about, for the manifest."""
    how = model.record.training.get("recipe", {}).get("train", {})
    aware = " of weights that were fine-tuned for it" if how.get("quantisation_aware") else ""
    left = f"; in floating point: {', '.join(plan.keep_float)}" if plan.keep_float else ""
    return {
        "fp16": "Weights stored in half precision, computed with in single.",
        "int8": (
            f"Post-training static int8{aware}, calibrated on the training split of the manifest "
            f"with streamed states{left}."
        ),
    }


def _write_clips(model: TrainedModel, plan: ExportPlan, stage: Path) -> list[ClipArtefact]:
    """The whole-clip form of each runtime, held against torch's own stream."""
    golden = read_golden_input(stage)[None]
    streamed = {k: v[None] for k, v in read_golden_expected(stage).items()}
    # What a beginning of the clip gives is the beginning of what the clip gives.
    n = CLIP_PIECE_FRAMES
    expected = {
        "golden": streamed,
        "pieces": {k: np.concatenate([v[:, :n]] * 2) for k, v in streamed.items()},
    }
    clips = {"golden": golden, "pieces": np.concatenate([golden[:, : n * FRAME_SAMPLES]] * 2)}
    return write_clips(
        lambda runtime: student_clip(model.student, TRANSFORM[runtime]),
        plan.runtimes,
        stage,
        clips,
        expected,
        lambda path: _finish(model, (), plan, path),
        plan.say,
    )


def _finish(
    model: TrainedModel, artefacts: Sequence[Artefact], plan: ExportPlan, path: Path
) -> None:
    """Metadata into an ONNX file."""
    steps = {
        f: a.step_samples or plan.step_samples for a in artefacts for f in (a.frontend, a.network)
    }
    record = model.record
    facts = detector_facts(record.name, record.version, record.licence, steps.get(path.name, 0))
    finish_onnx(path, facts, record.description)


def _write_artefacts(
    model: TrainedModel,
    runtime: str,
    step_samples: int,
    plan: ExportPlan,
    stage: Path,
    audio: list[Audio],
) -> list[Artefact]:
    """Write a runtime's front end and its networks for one step."""
    own_step = None if step_samples == plan.step_samples else step_samples
    suffix = SUFFIX[runtime]
    front_end, network = build_graphs(model.student, TRANSFORM[runtime], step_samples)
    front_end_path = stage / _file_name("frontend", "fp32", own_step, suffix)
    paths = {p: stage / _file_name("model", p, own_step, suffix) for p in PRECISIONS}
    write = write_onnx if runtime == "onnx" else write_executorch
    step_ms = step_samples * 1000 // SAMPLE_RATE_HZ
    plan.say(f"{runtime}, {step_ms} ms: front end")
    write(front_end, front_end_path)
    if "fp32" in plan.precisions or runtime == "onnx":
        plan.say(f"{runtime}, {step_ms} ms: network fp32")
        write(network, paths["fp32"])
    if "fp16" in plan.precisions and runtime == "onnx":
        plan.say(f"{runtime}, {step_ms} ms: network fp16")
        write_onnx_fp16(paths["fp32"], paths["fp16"])
    if "int8" in plan.precisions:
        steps = list(calibration_steps(front_end, network, audio))
        plan.say(f"{runtime}, {step_ms} ms: network int8, calibrated on {len(steps)} steps")
        if runtime == "onnx":
            write_onnx_int8(paths["fp32"], paths["int8"], steps, plan.keep_float)
        else:
            write_executorch_int8(network, paths["int8"], steps, plan.keep_float)
    if "fp32" not in plan.precisions:
        paths["fp32"].unlink(missing_ok=True)
    return [
        Artefact(
            runtime,
            p,
            front_end_path.name,
            paths[p].name,
            FP32_TOLERANCE,
            step_samples=own_step,
        )
        for p in plan.precisions
        if p != "fp16" or runtime == "onnx"
    ]


def _file_name(what: str, precision: str, own_step: int | None, suffix: str) -> str:
    """For example `model.80ms.int8.onnx`; the manifest's step and fp32 go without saying."""
    step = "" if own_step is None else f".{own_step * 1000 // SAMPLE_RATE_HZ}ms"
    return f"{what}{step}{'' if precision == 'fp32' else f'.{precision}'}.{suffix}"


def manifest_fields(
    model: TrainedModel, artefacts: Sequence[Artefact], step_samples: int = STEP_SAMPLES
) -> dict[str, Any]:
    """Everything a manifest says but its format version and digests."""
    front_end, network = build_graphs(model.student, "matmul", step_samples)
    record = msgspec.to_builtins(model.record)
    return {
        **record,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "labels": ["cry"],
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "hop_samples": HOP_SAMPLES,
        "step_samples": step_samples,
        "frame_samples": FRAME_SAMPLES,
        # A frame is out once its step has been heard whole: no look-ahead, one step of waiting.
        "latency_samples": step_samples,
        "embedding_size": network.output_shapes()["embedding"][-1],
        "n_mels": N_MELS,
        "graphs": {g.name: msgspec.to_builtins(graph_spec(g)) for g in (front_end, network)},
        "artefacts": [msgspec.to_builtins(a) for a in artefacts],
        "reasons": {"labels": [], "evidence": "none", "bar": REASON_BAR},
    }


REASON_BAR = {"metric": "auc", "lower_bound_over": 0.6}


def graph_spec(graph: ExportGraph) -> GraphSpec:
    """Names, shapes and types of a graph's tensors."""
    inputs = {name: tuple(tensor.shape) for name, tensor in graph.inputs.items()}
    document = {
        side: [{"name": n, "shape": s, "dtype": "float32"} for n, s in shapes.items()]
        for side, shapes in (("inputs", inputs), ("outputs", graph.output_shapes()))
    }
    return msgspec.convert(document, GraphSpec)
