"""One step API over ONNX Runtime, ExecuTorch and torch, chosen by name and never by trying.

The modules are looked up by name so that nothing which merely opens a runtime depends on all of
them: an app that asks for ONNX can never reach torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crykit.errors import MissingPart, UsageError

if TYPE_CHECKING:
    from crykit.bundle import Bundle

State = Any
"""Opaque to the caller, never changed in place: keep it, and a stream can be resumed from there."""


@dataclass(frozen=True)
class StepOutput:
    """One step's results, owned by the caller.

    Args:
        cry_probability: (frames,) float32.
        embedding: (frames, embedding size) float32.
        log_mel: (log-mel frames, mel bands) float32, scaled as the model sees it.
    """

    cry_probability: NDArray[np.float32]
    embedding: NDArray[np.float32]
    log_mel: NDArray[np.float32]


class Runtime(Protocol):
    """A model that is ready to run, one stream at a time per state."""

    name: str
    """For example ``onnx-int8``."""

    step_samples: int
    """Samples that `step` takes."""

    def initial_state(self) -> State:
        """The state before any sound: zeros."""
        ...

    def step(self, samples: NDArray[np.float32], state: State) -> tuple[StepOutput, State]:
        """Hear (step_samples,) float32 mono and return the outputs and the next state."""
        ...


@dataclass(frozen=True)
class _Engine:
    module: str
    needs: tuple[str, ...]
    install: str


# What can run a kind of model, best first.
_ENGINES = {
    "onnx": (_Engine("crykit.runtime.onnx", ("onnxruntime",), "pip install crykit"),),
    "executorch": (
        _Engine(
            "crykit.runtime.executorch_native",
            ("crykit_executorch",),
            "pip install ./native from a checkout",
        ),
        _Engine(
            "crykit.runtime.executorch",
            ("torch", "executorch"),
            "pip install 'crykit[export]'",
        ),
    ),
    "torch": (_Engine("crykit.runtime.torch", ("torch",), "pip install 'crykit[train]'"),),
}
RUNTIMES = tuple(_ENGINES)


def _engine(runtime: str) -> _Engine | None:
    """The best of those that are installed here."""
    for engine in _ENGINES.get(runtime, ()):
        if all(_is_installed(name) for name in engine.needs):
            return engine
    return None


def missing_engine(runtime: str) -> str | None:
    """Why a kind of runtime cannot be opened here, or None."""
    if runtime not in _ENGINES:
        return "unknown to this version"
    if _engine(runtime):
        return None
    ways: list[str] = []
    for engine in _ENGINES[runtime]:
        absent = [name for name in engine.needs if not _is_installed(name)]
        ways.append(f"{' and '.join(absent)}: {engine.install}")
    return f"needs {'; or '.join(ways)}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def runtime_choices(bundle: Bundle) -> list[tuple[str, str]]:
    """(runtime, precision) pairs that the bundle has something for, installed or not."""
    choices = list(dict.fromkeys((a.runtime, a.precision) for a in bundle.manifest.artefacts))
    return [*choices, ("torch", "fp32")] if bundle.has_weights else choices


def available_runtimes(bundle: Bundle) -> list[tuple[str, str, str | None]]:
    """(runtime, precision, why it cannot be opened here or None) for all the bundle offers."""
    return [(r, p, missing_engine(r)) for r, p in runtime_choices(bundle)]


def open_runtime(
    bundle: Bundle,
    runtime: str = "onnx",
    precision: str = "fp32",
    threads: int = 1,
    step_samples: int | None = None,
) -> Runtime:
    """Open one of the bundle's models.

    Args:
        bundle: an opened, verified bundle.
        runtime: "onnx", "executorch" or "torch".
        precision: "fp32", "fp16" or "int8".
        threads: that the runtime may use; one is best for a model this small.
        step_samples: heard at a time, if not the manifest's own step.

    Raises:
        UsageError: the bundle offers no such pair.
        MissingPart: the runtime is not installed.
        InputError: the runtime cannot read the file.
    """
    choices = runtime_choices(bundle)
    if runtime not in _ENGINES or (runtime, precision) not in choices:
        offered = ", ".join(f"{r} {p}" for r, p in choices)
        raise UsageError(
            f"{bundle.manifest.name} has no {runtime} {precision} model; it has {offered}"
        )
    engine = _engine(runtime)
    if engine is None:
        raise MissingPart(f"the {runtime} runtime {missing_engine(runtime)}")
    module = importlib.import_module(engine.module)
    opened: Runtime = module.open_model(bundle, precision, threads, step_samples)
    return opened
