"""Models that hear a whole clip at once: encoders, and detectors in their whole-clip form."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.bundle import Bundle, EncoderBundle
from crykit.errors import InputError, MissingPart, UsageError
from crykit.manifest import ClipArtefact
from crykit.runtime import missing_engine

Float32 = NDArray[np.float32]
Run = Callable[[Float32], list[Float32]]
"""(batch, samples) to the outputs in the artefact's order."""


class ClipModel:
    """One graph from samples to named outputs."""

    def __init__(self, artefact: ClipArtefact, run: Run) -> None:
        self.artefact = artefact
        self._run = run

    def run(self, samples: Float32) -> dict[str, Float32]:
        """Hear clips of one length, (batch, n) float32 in [-1, 1]; zeros fill what is missing.

        Raises:
            InputError: the clips are longer than the graph takes.
        """
        samples = self._filled(np.ascontiguousarray(samples, np.float32))
        most = self.artefact.max_batch or len(samples)
        parts = [self._run(samples[i : i + most]) for i in range(0, len(samples), most)]
        names = [output.name for output in self.artefact.outputs]
        return {
            name: np.concatenate(values)
            for name, values in zip(names, zip(*parts, strict=True), strict=True)
        }

    def _filled(self, samples: Float32) -> Float32:
        artefact, n = self.artefact, samples.shape[1]
        unit = artefact.multiple_of
        wanted = -(-max(n, artefact.min_samples) // unit) * unit
        if artefact.max_samples is not None and wanted > artefact.max_samples:
            raise InputError(
                f"expected clips of at most {artefact.max_samples} samples for this "
                f"{artefact.runtime} model, got {n}: cut the recording, or use onnx"
            )
        return np.pad(samples, ((0, 0), (0, wanted - n)))


def open_clip_model(
    bundle: Bundle | EncoderBundle, runtime: str = "onnx", precision: str = "fp32", threads: int = 1
) -> ClipModel:
    """Open one of the bundle's whole-clip models.

    Raises:
        UsageError: the bundle offers no such pair.
        MissingPart: the runtime is not installed.
        InputError: the runtime cannot read the file.
    """
    clips = bundle.manifest.clips
    for artefact in clips:
        if (artefact.runtime, artefact.precision) == (runtime, precision):
            return open_clip(bundle.path(artefact.file), artefact, threads)
    offered = ", ".join(f"{a.runtime} {a.precision}" for a in clips) or "none"
    raise UsageError(
        f"{bundle.manifest.name} has no {runtime} {precision} model for whole clips; "
        f"it has {offered}"
    )


def open_clip(path: Path, artefact: ClipArtefact, threads: int = 1) -> ClipModel:
    """Open a file; see `open_clip_model`."""
    missing = missing_engine(artefact.runtime)
    if missing:
        raise MissingPart(f"the {artefact.runtime} runtime {missing}")
    if artefact.runtime == "onnx":
        return ClipModel(artefact, _onnx(path, artefact, threads))
    try:
        native = importlib.import_module("crykit_executorch")
    except ImportError:
        module = importlib.import_module("crykit.runtime.executorch")
        return ClipModel(artefact, module.open_program(path, threads))
    try:
        program = native.Program(path, threads=threads)
    except (native.ProgramError, OSError) as error:
        raise InputError(f"{path}: ExecuTorch cannot read it: {error}") from None

    def run(samples: Float32) -> list[Float32]:
        try:
            return program.run([samples])
        except (native.ProgramError, ValueError) as error:
            raise InputError(f"{path}: ExecuTorch cannot run it: {error}") from None

    return ClipModel(artefact, run)


def _onnx(path: Path, artefact: ClipArtefact, threads: int) -> Run:
    from crykit.runtime.onnx import open_session

    session: Any = open_session(path, threads)
    names = [output.name for output in artefact.outputs]
    there = [*(i.name for i in session.get_inputs()), *(o.name for o in session.get_outputs())]
    if sorted(there) != sorted([artefact.input.name, *names]):
        raise InputError(
            f"{path}: the manifest names {', '.join([artefact.input.name, *names])}, "
            f"the graph has {', '.join(there)}"
        )
    return lambda samples: list(session.run(names, {artefact.input.name: samples}))
