"""Take out of a quantised ONNX file what no runtime reads: a sixth of it, more of a small one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import numpy_helper

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def slim_onnx(path: Path) -> None:
    """Rewrite a file with short inner names and nothing that can be worked out again.

    Inputs, outputs and what is computed stay. Shapes between nodes are inferred at load; names of
    inner tensors and nodes only link them; imports of operator sets that no node uses mean nothing;
    a zero point of zero is what is meant where none is named.
    """
    model = onnx.load(str(path))
    graph = model.graph
    _drop_zero_points(graph)
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    short = _short_names(kept)
    names: dict[str, str] = {name: name for name in kept}

    def rename(name: str) -> str:
        if name not in names:
            names[name] = next(short)
        return names[name]

    for constant in graph.initializer:
        constant.name = rename(constant.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    del graph.value_info[:]
    used = {node.domain for node in graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    onnx.save(model, str(path))


def _drop_zero_points(graph: onnx.GraphProto) -> None:
    """Of weights and biases, which are symmetric: a byte or four for each channel."""
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        if len(node.input) == 3 and not numpy_helper.to_array(constants[node.input[2]]).any():
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _short_names(taken: set[str]) -> Iterator[str]:
    """0, 1, ... z, 00, 01 ..., but for those taken."""
    for length in itertools.count(1):
        for digits in itertools.product(_DIGITS, repeat=length):
            if (name := "".join(digits)) not in taken:
                yield name
