"""What leaves torch: two graphs of one step each, with named tensors and explicit state.

Both exporters take an `ExportGraph`; names and shapes in the manifest are read off it too, so that
a runtime never has to guess them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crykit.nn.frontend import STEP_SAMPLES, LogMelFrontEnd, block_frames_of
from crykit.nn.student import CryStudent


@dataclass(frozen=True)
class ExportGraph:
    """A module in evaluation mode with the example inputs that fix its shapes."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    output_names: tuple[str, ...]

    @property
    def example(self) -> tuple[Tensor, ...]:
        return tuple(self.inputs.values())

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        with torch.inference_mode():
            outputs = self.module(*self.example)
        return {n: tuple(o.shape) for n, o in zip(self.output_names, outputs, strict=True)}


def fold_batch_norm(student: CryStudent) -> CryStudent:
    """A copy in evaluation mode whose batch norms are folded into the convolutions before them.

    Exporters fold most of them themselves; folding first makes the graphs alike on every runtime
    and gives the quantiser weights as they will be multiplied.
    """
    folded = copy.deepcopy(student).eval()
    for module in folded.modules():
        _fold_children(module)
    left = [type(m).__name__ for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    if left:
        raise RuntimeError(f"{len(left)} batch norms have no convolution before them to fold into")
    return folded


def _fold_children(module: nn.Module) -> None:
    children = list(module.named_children())
    for (name, layer), (next_name, follower) in zip(children, children[1:], strict=False):
        if isinstance(layer, nn.Conv2d) and isinstance(follower, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, follower))
            setattr(module, next_name, nn.Identity())


def with_persistent_buffers(module: nn.Module) -> nn.Module:
    """A copy whose buffers are all persistent: lowering loses track of the others."""
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        part._non_persistent_buffers_set.clear()
    return module


def front_end_graph(dft: str, step_samples: int = STEP_SAMPLES) -> ExportGraph:
    """The front end with its transform computed by `"matmul"` or `"fft"`."""
    module = with_persistent_buffers(LogMelFrontEnd(dft, block_frames_of(step_samples)))
    assert isinstance(module, LogMelFrontEnd)
    names = ("tail", "floor_sum", "floor_weight")
    inputs = {"samples": torch.zeros(1, step_samples)}
    inputs.update(zip(names, module.initial_state(1), strict=True))
    return ExportGraph(
        "frontend", module, inputs, ("features", *(f"{name}_next" for name in names))
    )


def network_graph(student: CryStudent, features: Tensor) -> ExportGraph:
    """The network, batch norms folded, time first; `features` (1, 2, mels, frames) is a step."""
    folded = fold_batch_norm(student)
    folded.lay_time_first(features.shape[3])
    state = folded.initial_state(1)
    names = [f"state_{index:02d}" for index in range(len(state))]
    inputs = {"features": features.clone(), **dict(zip(names, state, strict=True))}
    outputs = ("cry_probability", "embedding", *(f"{name}_next" for name in names))
    return ExportGraph("network", folded, inputs, outputs)


def build_graphs(
    student: CryStudent, dft: str, step_samples: int = STEP_SAMPLES
) -> tuple[ExportGraph, ExportGraph]:
    """Front end and network of one step, ready for an exporter."""
    front_end = front_end_graph(dft, step_samples)
    with torch.inference_mode():
        features = front_end.module(*front_end.example)[0]
    # Inference tensors cannot be traced, so the network gets plain ones of that shape.
    return front_end, network_graph(student, torch.zeros(features.shape))
