"""The bundle's ONNX models under ONNX Runtime: what a device without torch runs."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.manifest import GraphSpec
from crykit.runtime import StepOutput

Float32 = NDArray[np.float32]

# What a graph carries from step to step, by input name.
GraphState = dict[str, Float32]


class _Graph:
    """One session whose tensor names come from the manifest."""

    def __init__(self, path: Path, spec: GraphSpec, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A step takes a millisecond and the next comes 160 ms later: never burn a core waiting.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Its exceptions share no base class; each means the file is not for this runtime.
            line = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: ONNX Runtime cannot read it: {line}") from None
        _check_names(path, session, spec)
        states = spec.states()
        self._data_names = [s.name for s in spec.inputs if s not in states]
        self._state_names = [s.name for s in states]
        self._state_shapes = {s.name: s.shape for s in states}
        following = [f"{name}_next" for name in self._state_names]
        results = [s.name for s in spec.outputs if s.name not in following]
        self._n_results = len(results)
        self._output_names = [*results, *following]
        self._session = session

    def initial_state(self) -> GraphState:
        return {name: np.zeros(shape, np.float32) for name, shape in self._state_shapes.items()}

    def run(self, data: Float32, state: GraphState) -> tuple[list[Float32], GraphState]:
        """Results in the manifest's order, and the next state."""
        feed: dict[str, Any] = {self._data_names[0]: data, **state}
        outputs: list[Float32] = self._session.run(self._output_names, feed)  # type: ignore[assignment]
        after = dict(zip(self._state_names, outputs[self._n_results :], strict=True))
        return outputs[: self._n_results], after


def _check_names(path: Path, session: ort.InferenceSession, spec: GraphSpec) -> None:
    inputs = {i.name for i in session.get_inputs()}
    outputs = {o.name for o in session.get_outputs()}
    for what, wanted, there in (
        ("inputs", [s.name for s in spec.inputs], inputs),
        ("outputs", [s.name for s in spec.outputs], outputs),
    ):
        if set(wanted) != there:
            raise InputError(
                f"{path}: the manifest names the {what} {', '.join(sorted(wanted))}, "
                f"the graph has {', '.join(sorted(there))}"
            )


class OnnxRuntime:
    """See `crykit.runtime.Runtime`."""

    def __init__(
        self, bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
    ) -> None:
        artefact = bundle.artefact("onnx", precision, step_samples)
        graphs = bundle.manifest.graphs
        self.name = f"onnx-{precision}"
        self.step_samples = bundle.manifest.step_of(artefact)
        self._frontend = _Graph(bundle.path(artefact.frontend), graphs.frontend, threads)
        self._network = _Graph(bundle.path(artefact.network), graphs.network, threads)

    def initial_state(self) -> tuple[GraphState, GraphState]:
        return self._frontend.initial_state(), self._network.initial_state()

    def step(
        self, samples: Float32, state: tuple[GraphState, GraphState]
    ) -> tuple[StepOutput, tuple[GraphState, GraphState]]:
        frontend_state, network_state = state
        (features,), frontend_state = self._frontend.run(samples[np.newaxis], frontend_state)
        (probability, embedding), network_state = self._network.run(features, network_state)
        output = StepOutput(probability[0], embedding[0], features[0, 0].T)
        return output, (frontend_state, network_state)


def open_model(
    bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
) -> OnnxRuntime:
    """Called by `crykit.runtime.open_runtime`."""
    return OnnxRuntime(bundle, precision, threads, step_samples)
