"""Post-training static int8 of the network, for each runtime by its own quantiser.

The front end is a graph of its own and stays fp32: its power spectrum spans more decades than
eight bits have steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from crykit_export.graphs import ExportGraph
from crykit_export.quantisation import block_of, onnx_nodes_of, pt2e_filter
from crykit_export.quiet import quiet_exporters
from crykit_export.slim import slim_onnx
from crykit_export.to_executorch import write_executorch

Steps = Sequence[dict[str, Tensor]]


def write_onnx_int8(fp32: Path, path: Path, steps: Steps, keep_float: Collection[str] = ()) -> None:
    """Quantise an ONNX network: QDQ, per-channel int8 weights, uint8 activations, MinMax ranges.

    Args:
        fp32: the network as `write_onnx` wrote it.
        path: what to write.
        steps: inputs of the network, states included.
        keep_float: blocks that are left in floating point.
    """
    with quiet_exporters(), tempfile.TemporaryDirectory() as scratch:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._steps: Iterator[dict[str, Tensor]] = iter(steps)

            def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]
                step = next(self._steps, None)
                return None if step is None else {k: v.numpy() for k, v in step.items()}

        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        left_out = onnx_nodes_of(onnx.load(str(prepared)), keep_float)
        quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=ONNX_INT8_OPS,
            nodes_to_exclude=left_out,
            # ONNX Runtime quantises a bias itself at load: stored, it takes thrice the bytes.
            extra_options={"QuantizeBias": False},
        )
    _guard_float(path, left_out)
    slim_onnx(path)


def _guard_float(path: Path, left_out: Collection[str]) -> None:
    """Keep ONNX Runtime from quantising at load what was left in floating point on purpose.

    It does so, and does not say so, to a convolution between quantised neighbours, a ReLU counted
    as part of them; a leaky ReLU that does not leak is the same function and stands in the way.
    """
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "Relu" and node.name in left_out:
            node.op_type = "LeakyRelu"
            node.attribute.append(onnx.helper.make_attribute("alpha", 0.0))
    onnx.save(model, str(path))


ONNX_INT8_OPS = ["Conv", "Add", "Relu", "Concat", "Slice"]


def count_onnx_per_channel(path: Path) -> int:
    """Convolutions of an ONNX file whose int8 weights have a scale for each channel."""
    graph = onnx.load(str(path)).graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    per_channel = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in constants
        and constants[node.input[0]].dtype == np.int8
        and constants[node.input[1]].size == constants[node.input[0]].shape[0]
    }
    return sum(node.op_type == "Conv" and node.input[1] in per_channel for node in graph.node)


def quantise_pt2e(
    network: ExportGraph, steps: Steps, keep_float: Collection[str] = ()
) -> nn.Module:
    """The network with per-channel int8 weights and per-tensor int8 activations, for XNNPACK."""
    with quiet_exporters():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(_xnnpack_config())
        quantizer.set_filter_function(pt2e_filter(keep_float))
        exported = torch.export.export(network.module, network.example, strict=True).module()
        observed = prepare_pt2e(exported, quantizer)
        with torch.no_grad():
            for step in steps:
                observed(*step.values())
        return convert_pt2e(observed)


def _xnnpack_config() -> Any:
    """XNNPACK's static scheme (int8, weights a channel at a time) with plain MinMax ranges.

    Its ready-made configuration takes ranges from histograms, which costs minutes and cuts the
    rare extremes off, and bounds every scale below by 2 ** -12, which is coarse for channels whose
    weights are small once batch norm is folded into them.
    """
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver,
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
    )
    return QuantizationConfig(activation, activation, weight, None, False)


def count_per_channel(module: nn.Module) -> int:
    """Weights of a PT2E module that really are quantised a channel at a time."""
    assert isinstance(module, torch.fx.GraphModule)
    return sum("dequantize_per_channel" in str(node.target) for node in module.graph.nodes)


def write_executorch_int8(
    network: ExportGraph, path: Path, steps: Steps, keep_float: Collection[str] = ()
) -> list[str]:
    """Quantise and lower; returns the operators left to the portable kernels.

    Raises:
        RuntimeError: a convolution kept its float weights, which the quantiser never says.
    """
    quantised = quantise_pt2e(network, steps, keep_float)
    n_layers = sum(
        isinstance(module, nn.Conv2d) and block_of(name, keep_float) is None
        for name, module in network.module.named_modules()
    )
    n_quantised = count_per_channel(quantised)
    if n_quantised != n_layers:
        raise RuntimeError(f"{n_quantised} of {n_layers} convolutions have int8 weights")
    return write_executorch(network, path, quantised)
