"""Parameters and multiplications, against torch's own counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crykit.bundle import Bundle
from crykit_bench.sizes import count_macs, count_parameters, network_macs

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from crykit.runtime.torch import build_student  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("which", ["tiny_bundle", "bundle_path"])
def test_counts_are_torchs(which: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(which))
    student, manifest = build_student(bundle), bundle.manifest
    assert count_parameters(bundle) == sum(p.numel() for p in student.parameters())
    frames = manifest.step_samples // manifest.hop_samples
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(torch.zeros(1, 2, manifest.n_mels, frames), *student.initial_state(1))
    step_s = manifest.step_samples / manifest.sample_rate_hz
    network, frontend = network_macs(bundle)
    assert network == pytest.approx(counter.get_total_flops() / 2 / step_s)
    assert frontend is not None and frontend > 1e6


def test_int8_multiplies_as_often(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    full, quantised = (bundle.artefact("onnx", p).network for p in ("fp32", "int8"))
    assert count_macs(bundle.path(full)) == count_macs(bundle.path(quantised))


def test_products_of_matrices_count_what_is_summed_over(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    weight = numbers(np.ones((7, 5), np.float32), "w")
    graph = onnx.helper.make_graph(
        [
            make("MatMul", ["x", "w"], ["y"]),  # 3 x 7 by 7 x 5
            make("Gemm", ["y", "w"], ["z"], transB=1),  # 3 x 5 by 5 x 7
            make("Relu", ["z"], ["out"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 7])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [3, 7])],
        [weight],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "g.onnx")
    assert count_macs(tmp_path / "g.onnx") == 2 * 3 * 7 * 5


def test_what_is_no_graph_has_no_count(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert count_macs(tmp_path / "bad.onnx") is None


def test_a_bundle_without_onnx_or_weights_has_no_counts(tiny_bundle: Path, tmp_path: Path) -> None:
    import shutil

    import msgspec

    from crykit.bundle import WEIGHTS_NAME, write_manifest

    bare = tmp_path / "bare.cry"
    shutil.copytree(tiny_bundle, bare)
    (bare / WEIGHTS_NAME).unlink()
    write_manifest(
        bare, {**msgspec.to_builtins(Bundle.open(tiny_bundle).manifest), "artefacts": []}
    )
    assert count_parameters(Bundle.open(bare)) is None
    assert network_macs(Bundle.open(bare)) == (None, None)
