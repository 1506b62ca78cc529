"""What an ONNX file says of itself: metadata that any viewer shows, without the bundle at hand."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx

from crykit.nn.frontend import HOP_SAMPLES, SAMPLE_RATE_HZ
from crykit.nn.student import FRAME_SAMPLES
from crykit_export.slim import slim_onnx

PRODUCER = "crykit"


def detector_facts(name: str, version: str, licence: str, step_samples: int) -> dict[str, str]:
    """What a detector's files carry as metadata; whole clips have a step of 0."""
    return {
        "name": name,
        "version": version,
        "licence": licence,
        "labels": "cry",
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "hop_samples": str(HOP_SAMPLES),
        "frame_samples": str(FRAME_SAMPLES),
        "step_samples": str(step_samples),
        "latency_samples": str(step_samples),
    }


def finish_onnx(path: Path, facts: dict[str, str], doc: str) -> None:
    """Take out of a file what no runtime reads, and write metadata and producer into it."""
    slim_onnx(path)
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = PRODUCER, version("crykit")
    model.doc_string = doc
    model.graph.name = facts["name"]
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
