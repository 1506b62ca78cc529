"""Encoders in the bench: a cost, and no claim that they hear a cry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from crykit.bundle import Bundle, EncoderBundle, open_any, write_manifest
from crykit.errors import UsageError
from crykit_bench.gate import candidates
from crykit_bench.rows import ENCODER_NOTE, plan_rows, window_samples
from crykit_bench.run import Bench

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderBundle:
    """One product of a matrix and the clip, cut into rows of 100 samples."""
    folder = tmp_path_factory.mktemp("encoder") / "toy.cry"
    folder.mkdir()
    make, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    weight = np.ones((100, 6), np.float32)
    graph = onnx.helper.make_graph(
        [
            make("Reshape", ["samples", "shape"], ["rows"]),
            make("MatMul", ["rows", "w"], ["frames"]),
        ],
        "toy",
        [onnx.helper.make_tensor_value_info("samples", floats, ["batch", "n"])],
        [onnx.helper.make_tensor_value_info("frames", floats, ["batch", "frames", 6])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.array([0, -1, 100], np.int64), "shape"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "e.onnx")
    clip: dict[str, Any] = {
        "runtime": "onnx", "precision": "fp32", "file": "e.onnx", "tolerance": 1e-3,
        "input": {"name": "samples", "shape": ["batch", "n"]},
        "outputs": [{"name": "frames", "shape": ["batch", "frames", 6]}],
        "min_samples": 20_050, "multiple_of": 100,
    }  # fmt: skip
    fields = {
        "kind": "encoder", "name": "toy", "version": "0", "licence": "CC0", "created": "",
        "description": "", "sample_rate_hz": 16_000, "embedding_size": 6, "frame_size": 6,
        "hop_samples": 100, "centre_samples": 50.0, "architecture": {"name": "toy"},
        "clips": [clip, {**clip, "runtime": "absent"}],
    }  # fmt: skip
    write_manifest(folder, fields)
    opened = open_any(folder)
    assert isinstance(opened, EncoderBundle)
    return opened


def test_an_encoder_is_timed_over_its_shortest_clip(encoder: EncoderBundle, tmp_path: Path) -> None:
    report = Bench(plan_rows([encoder], ["onnx-fp32"], None), tmp_path, quick=True).run()
    (row,) = report.rows
    assert row.status == "ok", row.note
    assert row.step_ms == pytest.approx(1000 * 20_100 / 16_000), "a whole number of hundreds"
    assert row.latency_ms_median is not None and row.latency_ms_median > 0
    assert row.network_macs_per_audio_s == pytest.approx(16_000 / 100 * 100 * 6)
    assert row.golden is None and row.clips is None and row.note == ENCODER_NOTE
    assert "whole_share" in (row.floor or {}), "its front end is part of the graph"


def test_a_window_is_a_second_where_that_is_long_enough(encoder: EncoderBundle) -> None:
    clip = encoder.manifest.clips[0]
    short = msgspec.structs.replace(clip, min_samples=400, multiple_of=1)
    assert window_samples(encoder, short) == 16_000


def test_rows_of_a_runtime_that_is_absent_are_skipped(encoder: EncoderBundle) -> None:
    skipped = [e.row for e in plan_rows([encoder], None, None) if e.row.runtime == "absent"]
    assert [row.status for row in skipped] == ["skipped"]


def test_it_stands_beside_a_detector_under_its_own_name(
    encoder: EncoderBundle, bundle: Bundle
) -> None:
    ids = [entry.row.id for entry in plan_rows([bundle, encoder], ["onnx-fp32"], None)]
    assert ids == ["onnx-fp32", "toy:onnx-fp32"]
    with pytest.raises(UsageError, match="different names"):
        plan_rows([encoder, encoder], None, None)


def test_a_device_never_chooses_one(encoder: EncoderBundle) -> None:
    with pytest.raises(UsageError, match="toy is an encoder"):
        candidates([encoder], None, None)
