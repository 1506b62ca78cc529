"""The bundle's ExecuTorch programs under its own Python runtime, which itself needs torch.

Where `crykit_executorch` is installed, `crykit.runtime.executorch_native` is taken instead.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.manifest import GraphSpec
from crykit.runtime import StepOutput


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Its import warns of optional kernels that are absent; nobody here asked for them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


with _quiet():
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime as ExecuTorch
    from executorch.runtime import Verification

Float32 = NDArray[np.float32]
GraphState = tuple[torch.Tensor, ...]


class _Graph:
    """One program's `forward`, which takes and gives tensors in the manifest's order."""

    def __init__(self, path: Path, spec: GraphSpec) -> None:
        try:
            # The method points into the program: both live as long as this object.
            self._program = ExecuTorch.get().load_program(
                path, verification=Verification.InternalConsistency
            )
            self._method: Any = self._program.load_method("forward")
        except Exception as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(f"{path}: ExecuTorch cannot read it: {line}") from None
        states = spec.states()
        self._shapes = [s.shape for s in states]
        self._n_results = len(spec.outputs) - len(states)

    def initial_state(self) -> GraphState:
        return tuple(torch.zeros(shape) for shape in self._shapes)

    def run(self, data: torch.Tensor, state: GraphState) -> tuple[GraphState, GraphState]:
        # The outputs lie in the program's own memory, which the next call overwrites.
        outputs = [o.clone() for o in self._method.execute([data, *state])]
        return tuple(outputs[: self._n_results]), tuple(outputs[self._n_results :])


class ExecuTorchRuntime:
    """See `crykit.runtime.Runtime`."""

    def __init__(
        self, bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
    ) -> None:
        _set_threads(threads)
        artefact = bundle.artefact("executorch", precision, step_samples)
        graphs = bundle.manifest.graphs
        self.name = f"executorch-{precision}"
        self.step_samples = bundle.manifest.step_of(artefact)
        self._frontend = _Graph(bundle.path(artefact.frontend), graphs.frontend)
        self._network = _Graph(bundle.path(artefact.network), graphs.network)

    def initial_state(self) -> tuple[GraphState, GraphState]:
        return self._frontend.initial_state(), self._network.initial_state()

    def step(
        self, samples: Float32, state: tuple[GraphState, GraphState]
    ) -> tuple[StepOutput, tuple[GraphState, GraphState]]:
        frontend_state, network_state = state
        data = torch.tensor(samples[np.newaxis])
        (features,), frontend_state = self._frontend.run(data, frontend_state)
        (probability, embedding), network_state = self._network.run(features, network_state)
        output = StepOutput(probability[0].numpy(), embedding[0].numpy(), features[0, 0].T.numpy())
        return output, (frontend_state, network_state)


def _set_threads(threads: int) -> None:
    """The thread pool ignores CPU affinity and would otherwise take every core."""
    portable_lib._unsafe_reset_threadpool(threads)


def open_model(
    bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
) -> ExecuTorchRuntime:
    """Called by `crykit.runtime.open_runtime`."""
    return ExecuTorchRuntime(bundle, precision, threads, step_samples)


def open_program(path: Path, threads: int) -> Callable[[Float32], list[Float32]]:
    """A program with one input and no state, called by `crykit.runtime.clip`."""
    _set_threads(threads)
    graph = _Graph(path, GraphSpec((), ()))
    return lambda samples: [o.numpy() for o in graph.run(torch.from_numpy(samples), ())[1]]
