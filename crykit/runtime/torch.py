"""The bundle's weights in torch: the reference that every exported model is held against."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from crykit.bundle import WEIGHTS_NAME, Bundle
from crykit.errors import InputError, UsageError
from crykit.nn.frontend import LogMelFrontEnd, block_frames_of
from crykit.nn.student import CryStudent, StudentConfig
from crykit.runtime import StepOutput

Float32 = NDArray[np.float32]
GraphState = tuple[torch.Tensor, ...]


class TorchRuntime:
    """See `crykit.runtime.Runtime`."""

    def __init__(
        self, bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
    ) -> None:
        torch.set_num_threads(threads)
        self.name = f"torch-{precision}"
        self.step_samples = step_samples or bundle.manifest.step_samples
        if self.step_samples % bundle.manifest.frame_samples:
            raise UsageError(
                f"a step must be whole frames of {bundle.manifest.frame_samples} samples, "
                f"got {self.step_samples}"
            )
        self._frontend = LogMelFrontEnd(block_frames=block_frames_of(self.step_samples)).eval()
        self._network = build_student(bundle)

    def initial_state(self) -> tuple[GraphState, GraphState]:
        return self._frontend.initial_state(1), self._network.initial_state(1)

    def step(
        self, samples: Float32, state: tuple[GraphState, GraphState]
    ) -> tuple[StepOutput, tuple[GraphState, GraphState]]:
        frontend_state, network_state = state
        with torch.inference_mode():
            data = torch.tensor(samples[np.newaxis])
            features, *frontend_after = self._frontend(data, *frontend_state)
            probability, embedding, *network_after = self._network(features, *network_state)
        output = StepOutput(probability[0].numpy(), embedding[0].numpy(), features[0, 0].T.numpy())
        return output, (tuple(frontend_after), tuple(network_after))


def build_student(bundle: Bundle) -> CryStudent:
    """The student with the bundle's weights, ready to infer.

    Raises:
        InputError: the architecture is another, or the weights do not fit it.
    """
    architecture: dict[str, Any] = dict(bundle.manifest.architecture)
    kind = architecture.pop("kind", None)
    if kind != "cry_student":
        raise InputError(f"{bundle.folder}: expected the architecture cry_student, got {kind!r}")
    path = bundle.path(WEIGHTS_NAME)
    try:
        # JSON has lists where the configuration has tuples.
        student = CryStudent(msgspec.convert(architecture, StudentConfig))
        student.load_state_dict(load_file(path))
    except (msgspec.ValidationError, SafetensorError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: does not fit the architecture: {line}") from None
    return student.eval()


def open_model(
    bundle: Bundle, precision: str, threads: int, step_samples: int | None = None
) -> TorchRuntime:
    """Called by `crykit.runtime.open_runtime`."""
    return TorchRuntime(bundle, precision, threads, step_samples)
