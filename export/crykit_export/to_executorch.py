"""Write a graph as ExecuTorch, lowered to XNNPACK."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from crykit_export.graphs import ExportGraph
from crykit_export.quiet import quiet_exporters

SEGMENT_ALIGNMENT = 16


def write_executorch(graph: ExportGraph, path: Path, module: nn.Module | None = None) -> list[str]:
    """Lower `graph` and write the .pte; returns the operators left to the portable kernels.

    Args:
        module: stands in for the graph's own module, with the same inputs and outputs; a
            quantised one, say.
    """
    with quiet_exporters():
        exported = torch.export.export(module or graph.module, graph.example, strict=True)
        return lower(exported, path)


def lower(exported: torch.export.ExportedProgram, path: Path) -> list[str]:
    """Give XNNPACK what it takes and write the .pte; returns the operators that are left."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    left_out = undelegated(edge.exported_program().graph_module)
    # Every scale of an int8 network is a segment of its own; at 128 bytes each they waste 3 kB.
    config = ExecutorchBackendConfig(segment_alignment=SEGMENT_ALIGNMENT)
    path.write_bytes(edge.to_executorch(config).buffer)
    return left_out


def undelegated(lowered: torch.fx.GraphModule) -> list[str]:
    """Names of the operators in a lowered graph that no delegate took."""
    names = [str(n.target.name()) for n in lowered.graph.nodes if hasattr(n.target, "name")]
    return [name for name in names if name != "executorch_call_delegate"]
