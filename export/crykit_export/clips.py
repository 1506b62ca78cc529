"""Graphs that hear whole clips: a detector from zero state, or an encoder; batch and time dynamic.

ExecuTorch plans its memory ahead, so a program there hears clips of at most a stated length.
**Trap**: a program that is traced with a short clip and a dynamic axis takes nothing longer than
that clip, and says so only when it runs. So it is traced with the longest, and asked afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from crykit.manifest import ClipArtefact, ClipTensor
from crykit.nn.frontend import HOP_SAMPLES, SAMPLE_RATE_HZ, LogMelFrontEnd
from crykit.nn.pretrained import Pretrained
from crykit.nn.student import FRAME_SAMPLES, CryStudent
from crykit_export.clip_replay import Floats, Outputs, check_clip
from crykit_export.graphs import fold_batch_norm, with_persistent_buffers
from crykit_export.quiet import quiet_exporters
from crykit_export.to_executorch import lower
from crykit_export.to_onnx import save_onnx

ONNX_EXAMPLE_S = 2
EXECUTORCH_BATCH = {"detector": 1, "encoder": 2}
"""Clips at once under ExecuTorch. XNNPACK lets one size alone vary in the detector's reshapes; a
batch fixed at one would not let the length vary for an encoder."""
LONGEST_S = {"detector": 30, "encoder": 10}
"""Of a clip under ExecuTorch, whose memory is planned for it."""
TOLERANCE = 1e-3
"""Of an output's largest value: the same numbers in another order, through up to 34 layers."""


class StudentClip(nn.Module):
    """Samples (batch, n) to cry probability (batch, n / 640), embedding (batch, n / 640, size)."""

    def __init__(self, student: CryStudent, dft: str) -> None:
        super().__init__()
        self.front_end = LogMelFrontEnd(dft)
        self.student = fold_batch_norm(student)
        self.student.lay_time_first(0)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        features = self.front_end.whole(samples)
        state = self.student.initial_state(samples.shape[0])
        probability, embedding, *_ = self.student(features, *state)
        return probability, embedding


class EncoderClip(nn.Module):
    """Samples (batch, n) to embedding (batch, size) and frames (batch, k, frame size)."""

    def __init__(self, pretrained: Pretrained) -> None:
        super().__init__()
        self.pretrained = [pretrained]  # no module of torch, and no state of its own
        self.encoder = copy.deepcopy(pretrained.encoder).eval()
        self.front_end = copy.deepcopy(pretrained.front_end)
        self.head = copy.deepcopy(pretrained.head)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.encoder.frames(self.pretrained[0].normalise(self.front_end(samples)))
        pooled = self.encoder.pool(frames)
        return (pooled if self.head is None else self.head(pooled)), frames


@dataclass(frozen=True)
class ClipGraph:
    """A module over (batch, samples) and what its outputs are.

    Args:
        kind: "detector" or "encoder".
        outputs: name to shape, with the names of dynamic sizes.
        multiple_of: of which samples come in.
    """

    kind: str
    module: nn.Module
    outputs: dict[str, tuple[int | str, ...]]
    min_samples: int
    multiple_of: int = 1

    @property
    def longest_samples(self) -> int:
        return LONGEST_S[self.kind] * SAMPLE_RATE_HZ

    def artefact(self, runtime: str, file: str) -> ClipArtefact:
        """Its entry in the manifest."""
        fixed = runtime == "executorch"
        return ClipArtefact(
            runtime=runtime,
            precision="fp32",
            file=file,
            input=ClipTensor("samples", ("batch", "samples")),
            outputs=tuple(ClipTensor(name, shape) for name, shape in self.outputs.items()),
            tolerance=TOLERANCE,
            min_samples=self.min_samples,
            max_samples=self.longest_samples if fixed else None,
            multiple_of=self.multiple_of,
            max_batch=EXECUTORCH_BATCH[self.kind] if fixed else None,
        )


def student_clip(student: CryStudent, dft: str) -> ClipGraph:
    """A detector's whole-clip form."""
    size = student.config.embedding_size
    outputs: dict[str, tuple[int | str, ...]] = {
        "cry_probability": ("batch", "frames"),
        "embedding": ("batch", "frames", size),
    }
    # One frame alone would be taken for an axis that never changes.
    shortest = 2 * FRAME_SAMPLES
    module = with_persistent_buffers(StudentClip(student, dft))
    return ClipGraph("detector", module, outputs, shortest, FRAME_SAMPLES)


def encoder_clip(pretrained: Pretrained) -> ClipGraph:
    """An encoder with its log-mel and, if it has one, its head."""
    encoder = pretrained.encoder
    outputs: dict[str, tuple[int | str, ...]] = {
        "embedding": ("batch", pretrained.size),
        "frames": ("batch", "frames", encoder.frame_size),
    }
    # Two frame embeddings at least, and what mirroring the ends of a log-mel needs.
    n_frames = encoder.min_frames + encoder.hop_frames
    module = with_persistent_buffers(EncoderClip(pretrained))
    return ClipGraph("encoder", module, outputs, n_frames * HOP_SAMPLES)


def write_onnx_clip(graph: ClipGraph, path: Path) -> None:
    """One self-contained file, its dynamic sizes named."""
    example = torch.zeros(2, ONNX_EXAMPLE_S * SAMPLE_RATE_HZ)
    with quiet_exporters():
        program = torch.onnx.export(
            graph.module,
            (example,),
            None,
            dynamo=True,
            dynamic_shapes=({0: Dim("batch"), 1: _length(graph, None)},),
            input_names=["samples"],
            output_names=list(graph.outputs),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    shapes = {"samples": ("batch", "samples"), **graph.outputs}
    for tensor in (*program.model.graph.inputs, *program.model.graph.outputs):
        tensor.shape = onnx_ir.Shape(shapes[str(tensor.name)])
    save_onnx(program, path)


def write_executorch_clip(graph: ClipGraph, path: Path) -> list[str]:
    """One program for one clip at a time; returns the operators left to the portable kernels.

    Raises:
        RuntimeError: the program would not take its longest clip.
    """
    batch = EXECUTORCH_BATCH[graph.kind]
    example = torch.zeros(batch, graph.longest_samples)
    with quiet_exporters():
        sizes = {1: _length(graph, graph.longest_samples)}
        if batch > 1:
            sizes[0] = Dim("batch", min=1, max=batch)
        dynamic = (sizes,)
        exported = torch.export.export(
            graph.module, (example,), dynamic_shapes=dynamic, strict=True
        )
        left_out = lower(exported, path)
    taken = longest_input(path)
    if taken != tuple(example.shape):
        raise RuntimeError(f"the program takes {taken} at most, not {tuple(example.shape)}")
    return left_out


def longest_input(path: Path) -> tuple[int, ...]:
    """Upper bound of a program's first input, as its own metadata has it."""
    with quiet_exporters():
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")
        assert method is not None
        return tuple(method.metadata.input_tensor_meta(0).sizes())


def _length(graph: ClipGraph, longest: int | None) -> Any:
    unit, shortest = graph.multiple_of, graph.min_samples
    most = None if longest is None else longest // unit
    units = Dim("samples" if unit == 1 else "frames", min=-(-shortest // unit), max=most)
    return units if unit == 1 else unit * units


def write_clips(
    graph_of: Callable[[str], ClipGraph],
    runtimes: Sequence[str],
    stage: Path,
    clips: dict[str, Floats],
    expected: Outputs,
    finish: Callable[[Path], None],
    say: Callable[[str], None],
) -> list[ClipArtefact]:
    """Write the whole-clip file of each runtime into `stage` and hold it against torch.

    Args:
        graph_of: the graph for a runtime.
        clips, expected: what is played and what must come out; see `check_clip`.
        finish: puts metadata into an ONNX file.

    Raises:
        FaultFound: an artefact does not agree with torch.
    """
    checked: list[ClipArtefact] = []
    for runtime in runtimes:
        graph = graph_of(runtime)
        stem = "clip" if graph.kind == "detector" else "encoder"
        path = stage / f"{stem}.{'onnx' if runtime == 'onnx' else 'pte'}"
        say(f"{runtime}: whole clips")
        if runtime == "onnx":
            write_onnx_clip(graph, path)
            finish(path)
        else:
            write_executorch_clip(graph, path)
        checked.append(check_clip(stage, graph.artefact(runtime, path.name), clips, expected))
        say(f"{runtime}: whole clips agree, {_scores(checked[-1])}")
    return checked


def _scores(artefact: ClipArtefact) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in artefact.scores.items())
