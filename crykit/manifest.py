"""The manifest of a bundle, as typed data: what `manifest.json` must say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from crykit.gate import GateSettings

FORMAT_VERSION = 1
_SHA256 = re.compile("[0-9a-f]{64}")


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of a graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class GraphSpec(msgspec.Struct, frozen=True):
    """A graph's tensors in order: the data first, then the states.

    A state that comes in as ``x`` goes out as ``x_next``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def states(self) -> tuple[TensorSpec, ...]:
        """Inputs that have an output ``NAME_next``."""
        outputs = {spec.name for spec in self.outputs}
        return tuple(spec for spec in self.inputs if f"{spec.name}_next" in outputs)


class Graphs(msgspec.Struct, frozen=True):
    """Samples to features, and features to probabilities."""

    frontend: GraphSpec
    network: GraphSpec


class Tolerance(msgspec.Struct, frozen=True):
    """How far an artefact may stray from torch, and why that is far enough."""

    cry_probability_max_abs: float
    justification: str = ""


class Artefact(msgspec.Struct, frozen=True):
    """One exported model: a front end and a network for one runtime, precision and step.

    Args:
        step_samples: what it hears at a time, where that is not the manifest's own step. The states
            are those of every other step: only the extents in time of the data differ.
    """

    runtime: str
    precision: str
    frontend: str
    network: str
    tolerance: Tolerance
    scores: dict[str, Any] = {}
    step_samples: int | None = None

    @property
    def label(self) -> str:
        """For messages: runtime, precision, and the step where it is not the manifest's."""
        step = f" at steps of {self.step_samples} samples" if self.step_samples else ""
        return f"{self.runtime} {self.precision}{step}"


class ClipTensor(msgspec.Struct, frozen=True):
    """An input or output of a graph that hears whole clips: a dynamic size is given by its name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


class ClipArtefact(msgspec.Struct, frozen=True, kw_only=True):
    """One graph that hears a whole clip at once, from a fresh start, without states.

    Args:
        input: ``samples`` (batch, samples).
        tolerance: how far an output may stray from torch, as a share of its largest value.
        min_samples, max_samples: of a clip; no longest where that is None.
        multiple_of: a clip has a multiple of so many samples; zeros fill it.
        max_batch: clips at once; None for any number.
        scores: what was measured, by output.
    """

    runtime: str
    precision: str
    file: str
    input: ClipTensor
    outputs: tuple[ClipTensor, ...]
    tolerance: float
    min_samples: int
    max_samples: int | None = None
    multiple_of: int = 1
    max_batch: int | None = None
    scores: dict[str, Any] = {}

    def __post_init__(self) -> None:
        longest = self.max_samples
        if self.min_samples < 1 or self.multiple_of < 1 or len(self.input.shape) != 2:
            raise ValueError("a clip artefact takes (batch, samples), one sample at least")
        if longest is not None and longest < self.min_samples:
            raise ValueError(f"the longest clip, {longest}, is shorter than the shortest")


class ClipPooling(msgspec.Struct, frozen=True):
    """How `classify` makes one number of a clip: the mean of its highest frame probabilities."""

    top_fraction: float = 0.1
    threshold: float = 0.5


class Reasons(msgspec.Struct, frozen=True):
    """The reason head, if there is one, and the bar it must clear to be shown."""

    labels: tuple[str, ...] = ()
    evidence: str = "none"
    bar: Any = None


class Evidence(msgspec.Struct, frozen=True):
    """One measured claim of the model, with its interval over groups."""

    head: str
    metric: str
    value: float
    ci95: tuple[float, float]
    groups: int
    clips: int
    data: str


class FileEntry(msgspec.Struct, frozen=True):
    """What a file must be, to the byte."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {self.sha256[:80]!r}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device must know of a detector. Times are in samples, durations in their unit.

    Args:
        artefacts: models that hear a stream, step by step.
        clips: models that hear whole clips.
    """

    format_version: int
    kind: Literal["detector"] = "detector"
    name: str
    version: str
    licence: str
    created: str
    description: str
    labels: tuple[str, ...]
    sample_rate_hz: int
    hop_samples: int
    step_samples: int
    frame_samples: int
    latency_samples: int
    embedding_size: int
    n_mels: int
    architecture: dict[str, Any]
    graphs: Graphs
    artefacts: tuple[Artefact, ...]
    gate: GateSettings
    clip: ClipPooling
    files: dict[str, FileEntry]
    reasons: Reasons = Reasons()
    evidence: tuple[Evidence, ...] = ()
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    clips: tuple[ClipArtefact, ...] = ()

    def __post_init__(self) -> None:
        _check_listed(self.clips, self.files)
        for text in (self.name, self.version):
            # They are printed: on a terminal a control character is a command.
            if not text.isprintable():
                raise ValueError(f"names must be printable, got {text[:80]!r}")
        for name in ("sample_rate_hz", "hop_samples", "step_samples", "frame_samples", "n_mels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.step_samples % self.frame_samples or self.step_samples % self.hop_samples:
            raise ValueError("step_samples must be whole frames and whole hops")
        if not 0.0 < self.clip.top_fraction <= 1.0:
            raise ValueError(f"clip.top_fraction must be in (0, 1], got {self.clip.top_fraction:g}")
        for artefact in self.artefacts:
            step = self.step_of(artefact)
            if step <= 0 or step % self.frame_samples or step % self.hop_samples:
                raise ValueError(f"an artefact's step_samples must be whole frames, got {step}")
            for file in (artefact.frontend, artefact.network):
                if file not in self.files:
                    raise ValueError(f"the artefact file {file!r} is not among its files")

    def step_of(self, artefact: Artefact) -> int:
        """Samples that an artefact hears at a time."""
        return self.step_samples if artefact.step_samples is None else artefact.step_samples

    def artefact(
        self, runtime: str, precision: str, step_samples: int | None = None
    ) -> Artefact | None:
        """The artefact for a runtime, precision and step (the manifest's own), or None."""
        step = self.step_samples if step_samples is None else step_samples
        for artefact in self.artefacts:
            wanted = (artefact.runtime, artefact.precision) == (runtime, precision)
            if wanted and self.step_of(artefact) == step:
                return artefact
        return None


class EncoderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device must know of an encoder, which makes embeddings and detects nothing.

    Args:
        embedding_size: of a whole clip's embedding.
        frame_size: of a frame's.
        hop_samples: from one frame embedding to the next.
        centre_samples: the centre of what the first frame embedding sees.
        architecture: the encoder's name and options.
    """

    format_version: int
    kind: Literal["encoder"]
    name: str
    version: str
    licence: str
    created: str
    description: str
    sample_rate_hz: int
    embedding_size: int
    frame_size: int
    hop_samples: int
    centre_samples: float
    architecture: dict[str, Any]
    clips: tuple[ClipArtefact, ...]
    files: dict[str, FileEntry]
    training: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.sample_rate_hz <= 0 or self.hop_samples <= 0:
            raise ValueError("sample_rate_hz and hop_samples must be positive")
        _check_listed(self.clips, self.files)


def _check_listed(clips: Iterable[ClipArtefact], files: dict[str, FileEntry]) -> None:
    for clip in clips:
        if clip.file not in files:
            raise ValueError(f"the artefact file {clip.file!r} is not among its files")
