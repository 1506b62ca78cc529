"""The bundle's ONNX models under ONNX Runtime: what a device without torch runs.

A step takes half a millisecond, and a good part of it would go into handing tensors over. So every
tensor has a place for good that the session reads and writes (ONNX Runtime's IO binding), the front
end's features lie where the network looks for them, and states swing between two buffers.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.manifest import GraphSpec, TensorSpec
from crykit.runtime import StepOutput

Float32 = NDArray[np.float32]

ALIGNED = 16  # floats: each state starts at a multiple of 64 bytes


class GraphState:
    """All that a graph carries from step to step, in one array.

    The array is one of the graph's two buffers as long as nobody else needs that; a state that is
    kept while the stream goes on is given a copy.
    """

    __slots__ = ("__weakref__", "values")

    def __init__(self, values: Float32) -> None:
        self.values = values


class _Graph:
    """One session with its tensors in place; their names come from the manifest.

    Attributes:
        data: what it hears; written by the caller, or another graph's result.
        results: its outputs but for the states, overwritten by every run.
    """

    def __init__(
        self, path: Path, spec: GraphSpec, threads: int, data: Float32 | None = None
    ) -> None:
        session = open_session(path, threads)
        _check_names(path, session, spec)
        shapes = _shapes(path, session)
        states = spec.states()
        for state in states:
            if shapes[state.name] != state.shape or shapes[f"{state.name}_next"] != state.shape:
                raise InputError(
                    f"{path}: the manifest says that {state.name} is {state.shape}, "
                    f"the graph has {shapes[state.name]}"
                )
        following = [f"{state.name}_next" for state in states]
        data_name = next(s.name for s in spec.inputs if s not in states)
        self.data = np.zeros(shapes[data_name], np.float32) if data is None else data
        if self.data.shape != shapes[data_name]:
            raise InputError(
                f"{path}: expected {data_name} of {self.data.shape}, got {shapes[data_name]}"
            )
        names = [s.name for s in spec.outputs if s.name not in following]
        self.results = [np.zeros(shapes[name], np.float32) for name in names]
        inputs = {data_name: self.data}
        outputs = dict(zip(names, self.results, strict=True))
        self._halves = [_buffer(states), _buffer(states)]
        self._owners: list[weakref.ref[GraphState] | None] = [None, None]
        views = [_views(half, states) for half in self._halves]
        self._swings = [
            _bind(
                session,
                inputs | dict(zip((s.name for s in states), before, strict=True)),
                outputs | dict(zip(following, after, strict=True)),
            )
            for before, after in (views, reversed(views))
        ]
        self._session = session

    def initial_state(self) -> GraphState:
        return GraphState(np.zeros_like(self._halves[0]))

    def run(self, state: GraphState) -> GraphState:
        """Hear what lies in `data`, leave the results in `results`, return the next state."""
        before = next((i for i in (0, 1) if state.values is self._halves[i]), None)
        if before is None:
            before = 0
            self._vacate(before)
            self._halves[before][:] = state.values
        after = 1 - before
        self._vacate(after)
        self._session.run_with_iobinding(self._swings[before])
        following = GraphState(self._halves[after])
        self._owners[after] = weakref.ref(following)
        return following

    def _vacate(self, half: int) -> None:
        """Give a state that somebody keeps a copy before its buffer is written."""
        owner = self._owners[half]
        kept = owner() if owner is not None else None
        if kept is not None:
            kept.values = kept.values.copy()
        self._owners[half] = None


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A session on the CPU.

    Raises:
        InputError: ONNX Runtime cannot read the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A step takes a millisecond and the next comes 160 ms later: never burn a core waiting.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # Its exceptions share no base class; each means the file is not for this runtime.
        line = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: ONNX Runtime cannot read it: {line}") from None


def _shapes(path: Path, session: ort.InferenceSession) -> dict[str, tuple[int, ...]]:
    """Of all inputs and outputs, which must be fixed and float32."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        fixed = all(isinstance(size, int) and size > 0 for size in tensor.shape)
        if not fixed or tensor.type != "tensor(float)":
            raise InputError(
                f"{path}: expected {tensor.name} as float32 of a fixed shape, "
                f"got {tensor.type} {tensor.shape}"
            )
        shapes[tensor.name] = tuple(tensor.shape)
    return shapes


def _places(states: Sequence[TensorSpec]) -> list[int]:
    """Where each state starts in a buffer, and where the last one ends."""
    starts = [0]
    for state in states:
        starts.append(starts[-1] + -(-math.prod(state.shape) // ALIGNED) * ALIGNED)
    return starts


def _buffer(states: Sequence[TensorSpec]) -> Float32:
    return np.zeros(_places(states)[-1], np.float32)


def _views(buffer: Float32, states: Sequence[TensorSpec]) -> list[Float32]:
    return [
        buffer[start : start + math.prod(state.shape)].reshape(state.shape)
        for start, state in zip(_places(states), states, strict=False)
    ]


def _bind(
    session: ort.InferenceSession, inputs: dict[str, Float32], outputs: dict[str, Float32]
) -> Any:
    """ONNX Runtime reads and writes these very arrays."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    return binding


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
        (features,) = self._frontend.results
        self._network = _Graph(bundle.path(artefact.network), graphs.network, threads, features)
        self._lock = threading.Lock()

    def initial_state(self) -> tuple[GraphState, GraphState]:
        return self._frontend.initial_state(), self._network.initial_state()

    def step(
        self, samples: Float32, state: tuple[GraphState, GraphState]
    ) -> tuple[StepOutput, tuple[GraphState, GraphState]]:
        with self._lock:
            self._frontend.data[0] = samples
            following = self._frontend.run(state[0]), self._network.run(state[1])
            (features,) = self._frontend.results
            probability, embedding = self._network.results
            output = StepOutput(probability[0].copy(), embedding[0].copy(), features[0, 0].T.copy())
        return output, following


def open_model(
    bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
) -> OnnxRuntime:
    """Called by `crykit.runtime.open_runtime`."""
    return OnnxRuntime(bundle, precision, threads, step_samples)
