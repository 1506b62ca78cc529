"""Weights stored in half precision, computed with in single: half the file at the same speed.

ONNX Runtime turns each stored half back into a single when it loads the file, so what runs is the
fp32 network with weights rounded to eleven bits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from crykit_export.slim import slim_onnx

LEAST_VALUES = 64
"""Smaller constants are left alone: a cast costs more bytes than it saves."""


def write_onnx_fp16(fp32: Path, path: Path) -> int:
    """Write an ONNX network anew, its weights as halves; returns how many tensors became so.

    Args:
        fp32: the network as `write_onnx` wrote it.
        path: what to write.
    """
    model = onnx.load(str(fp32))
    casts: list[onnx.NodeProto] = []
    for constant in model.graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        if values.size < LEAST_VALUES or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = constant.name
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}_half")
        constant.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
    slim_onnx(path)
    return len(casts)
