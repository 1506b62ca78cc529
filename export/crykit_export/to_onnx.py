"""Write a graph as ONNX, fp32."""

from __future__ import annotations

from pathlib import Path

import torch

from crykit_export.graphs import ExportGraph
from crykit_export.quiet import quiet_exporters


def write_onnx(graph: ExportGraph, path: Path) -> None:
    """One self-contained file: fixed shapes, no external data, tensor names as `graph` has them."""
    with quiet_exporters():
        program = torch.onnx.export(
            graph.module,
            graph.example,
            None,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.output_names),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    save_onnx(program, path)


def save_onnx(program: torch.onnx.ONNXProgram, path: Path) -> None:
    """Write an exported program without its traces of where it was made."""
    model = program.model
    # Where each node came from in the source is of no use to a device, and names local paths.
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    program.save(str(path), external_data=False)
