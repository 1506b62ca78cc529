"""How large a model is: its parameters, and its multiplications counted on the graph as it runs.

The counts come from ONNX Runtime's own profile of one inference with no optimisation, so they are
those of the graph in the file, on a device that has neither torch nor the onnx package.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from crykit.bundle import WEIGHTS_NAME, Bundle, EncoderBundle
from crykit_bench.rows import window_samples

Shapes = Mapping[str, tuple[int, ...]]
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")  # statistics, not parameters


def count_parameters(bundle: Bundle | EncoderBundle) -> int | None:
    """Trained numbers in the bundle's weights; None where it carries none."""
    from safetensors import safe_open

    if WEIGHTS_NAME not in bundle.manifest.files:
        return None
    with safe_open(bundle.path(WEIGHTS_NAME), framework="numpy") as weights:
        return sum(
            prod(weights.get_slice(name).get_shape())
            for name in weights.keys()
            if not name.endswith(_RUNNING)
        )


def count_macs(path: Path, shapes: Shapes | None = None) -> float | None:
    """Multiplications with addition in one call of an ONNX graph; None if it cannot be profiled.

    Args:
        shapes: of its inputs by name, where the graph itself leaves them open.
    """
    try:
        events = _profile(path, shapes or {})
    except Exception:  # ONNX Runtime's exceptions share no base class
        return None
    return float(sum(_macs(event["args"]) for event in events if event.get("cat") == "Node"))


def network_macs(bundle: Bundle | EncoderBundle) -> tuple[float | None, float | None]:
    """Of network and front end, a second of audio; None where the bundle has no ONNX form.

    An encoder's front end is part of its graph.
    """
    manifest = bundle.manifest
    if isinstance(bundle, EncoderBundle):
        clip = next((c for c in bundle.manifest.clips if c.runtime == "onnx"), None)
        if clip is None:
            return None, None
        samples = window_samples(bundle, clip)
        macs = count_macs(bundle.path(clip.file), {clip.input.name: (1, samples)})
        return macs and macs * manifest.sample_rate_hz / samples, 0.0
    artefact = bundle.manifest.artefact("onnx", "fp32")
    if artefact is None:
        return None, None
    steps_a_second = manifest.sample_rate_hz / bundle.manifest.step_samples
    graphs = bundle.manifest.graphs
    network, frontend = (
        count_macs(bundle.path(name), {tensor.name: tensor.shape for tensor in spec.inputs})
        for name, spec in ((artefact.network, graphs.network), (artefact.frontend, graphs.frontend))
    )
    return network and network * steps_a_second, frontend and frontend * steps_a_second


def _profile(path: Path, shapes: Shapes) -> list[dict[str, Any]]:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="crykit-bench-") as scratch:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Weights that were packed beforehand would be missing from the profile.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = ort.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        feed = {i.name: _zeros(i, shapes) for i in session.get_inputs()}
        session.run(None, feed)
        return json.loads(Path(session.end_profiling()).read_text())


def _zeros(node: Any, shapes: Shapes) -> np.ndarray:
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    fixed = all(isinstance(extent, int) for extent in node.shape)
    return np.zeros(node.shape if fixed else shapes[node.name], kinds[node.type])


def _macs(args: dict[str, Any]) -> int:
    """Of one node, as the profile tells it; none where it does not multiply and add."""
    ins, outs = _shapes(args, "input_type_shape"), _shapes(args, "output_type_shape")
    match args.get("op_name"):
        case "Conv" | "FusedConv" | "ConvInteger" | "QLinearConv":
            kernel = ins[1] if args["op_name"] != "QLinearConv" else ins[3]
            return prod(outs[0]) * prod(kernel[1:])
        case "MatMul" | "Gemm" | "MatMulInteger":
            # (..., M, K) by (..., K, N); a Gemm may have either transposed, so K is what is left.
            columns = outs[0][-1]
            rest = [extent for extent in ins[1][-2:] if extent != columns]
            return prod(outs[0]) * (rest[0] if rest else columns)
    return 0


def _shapes(args: dict[str, Any], key: str) -> list[list[int]]:
    return [shape for tensor in args.get(key, []) for shape in tensor.values()]
