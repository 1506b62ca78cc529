"""The bundle's ExecuTorch programs under `crykit_executorch`: no torch, a few MB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from crykit_executorch import Program, ProgramError, State
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.manifest import GraphSpec
from crykit.runtime import StepOutput

Float32 = NDArray[np.float32]


class _Graph:
    """One program, whose states stay inside it: opaque, and never changed in place."""

    def __init__(self, path: Path, spec: GraphSpec, threads: int) -> None:
        states = spec.states()
        try:
            program = Program(path, threads=threads, states=len(states))
        except (ProgramError, OSError) as error:
            raise InputError(f"ExecuTorch cannot read it: {error}") from None
        _check_shapes(path, program, spec)
        self._path = path
        self._program = program

    def initial_state(self) -> State:
        return self._program.initial_state()

    def run(self, data: Float32, state: State) -> tuple[list[Float32], State]:
        try:
            return self._program.step((data,), state)
        except (ProgramError, TypeError, ValueError) as error:
            raise InputError(f"{self._path}: ExecuTorch cannot run it: {error}") from None


def _check_shapes(path: Path, program: Program, spec: GraphSpec) -> None:
    """A program keeps no names: the numbers of tensors and the states' shapes must do."""
    for what, wanted, there in (
        ("inputs", spec.inputs, program.inputs),
        ("outputs", spec.outputs, program.outputs),
    ):
        if len(wanted) != len(there):
            raise InputError(
                f"{path}: the manifest names {len(wanted)} {what}, the program has {len(there)}"
            )
    # The data's extent in time differs from step to step; a state's never does.
    n_data = len(spec.inputs) - len(spec.states())
    for wanted, there in zip(spec.inputs[n_data:], program.inputs[n_data:], strict=True):
        if (wanted.shape, wanted.dtype) != (there.shape, there.dtype):
            raise InputError(
                f"{path}: the manifest says that {wanted.name} is {wanted.dtype} of "
                f"{wanted.shape}, the program takes {there.dtype} of {there.shape}"
            )


class NativeExecuTorchRuntime:
    """See `crykit.runtime.Runtime`."""

    def __init__(
        self, bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
    ) -> None:
        artefact = bundle.artefact("executorch", precision, step_samples)
        graphs = bundle.manifest.graphs
        self.name = f"executorch-{precision}"
        self.step_samples = bundle.manifest.step_of(artefact)
        self._frontend = _Graph(bundle.path(artefact.frontend), graphs.frontend, threads)
        self._network = _Graph(bundle.path(artefact.network), graphs.network, threads)

    def initial_state(self) -> tuple[State, State]:
        return self._frontend.initial_state(), self._network.initial_state()

    def step(
        self, samples: Float32, state: tuple[State, State]
    ) -> tuple[StepOutput, tuple[State, State]]:
        frontend_state, network_state = state
        (features,), frontend_state = self._frontend.run(samples[np.newaxis], frontend_state)
        (probability, embedding), network_state = self._network.run(features, network_state)
        output = StepOutput(probability[0], embedding[0], features[0, 0].T)
        return output, (frontend_state, network_state)


def open_model(
    bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
) -> NativeExecuTorchRuntime:
    """Called by `crykit.runtime.open_runtime`."""
    return NativeExecuTorchRuntime(bundle, precision, threads, step_samples)
