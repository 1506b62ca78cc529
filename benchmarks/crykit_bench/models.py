"""The models that a row's process can hold: a bundle under a runtime, CNN14, YAMNet."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crykit_bench.protocol import Subject

CNN14, YAMNET = "cnn14", "yamnet"


class Model(Protocol):
    """What can be timed: `step_s` seconds of audio at a time, over and over."""

    step_s: float

    def step(self) -> None: ...

    def engine(self) -> str:
        """What runs it, with its version."""
        ...


def open_subject(subject: Subject) -> Model:
    """Open what a row is about.

    Raises:
        CrykitError: it cannot be read, or its runtime is not installed.
    """
    if subject.runtime == CNN14:
        return Cnn14(subject)
    if subject.runtime == YAMNET:
        from crykit_bench.yamnet import YamnetPeer

        return YamnetPeer(subject.path, subject.threads)
    return Encoder(subject) if subject.encoder else Student(subject)


class Student:
    """A bundle under one of its runtimes, playing the golden clip round and round."""

    def __init__(self, subject: Subject) -> None:
        from crykit.bundle import Bundle
        from crykit.runtime import open_runtime

        # The bench has compared the digests; doing it again would count as this row's memory.
        self.bundle = Bundle.open(subject.path, verify=False)
        self.runtime = open_runtime(
            self.bundle,
            subject.runtime,
            subject.precision,
            threads=subject.threads,
            step_samples=subject.step_samples,
        )
        self._subject = subject
        self._size = self.runtime.step_samples
        self.step_s = self._size / self.bundle.manifest.sample_rate_hz
        self._steps = [np.zeros(self._size, np.float32)]
        self._state = self.runtime.initial_state()
        self._next = 0

    def step(self) -> None:
        _, self._state = self.runtime.step(self._steps[self._next], self._state)
        self._next = (self._next + 1) % len(self._steps)

    def engine(self) -> str:
        return engine_of(self._subject.runtime)

    def golden(self, threshold: float) -> dict[str, float]:
        """How far the probabilities are from torch's on the golden clip.

        Args:
            threshold: `same_side_share` is that of frames on the same side of it as torch.
        """
        with np.load(self._subject.golden) as golden:
            samples, expected = golden["samples"], golden["cry_probability"]
        # A step of its own need not divide the clip; what silence answers is cut off again.
        padded = np.pad(samples, (0, -len(samples) % self._size))
        self._steps, self._next = list(padded.reshape(-1, self._size)), 0
        state = self.runtime.initial_state()
        heard: list[np.ndarray] = []
        for samples in self._steps:
            output, state = self.runtime.step(samples, state)
            heard.append(output.cry_probability)
        return apart(np.concatenate(heard)[: len(expected)], expected, threshold)

    def network(self, steps: int) -> list[float] | None:
        """Wall time of the network alone in each of so many steps; None where it is not told."""
        from crykit_bench.parts import timed_network

        with timed_network(self.runtime) as wall_ms:
            for _ in range(steps):
                self.step()
        return wall_ms or None

    def clips(self, manifest: str, split: str) -> list[float]:
        """The clip score of each labelled clip of a split."""
        from crykit.dataset import read_clip
        from crykit.offline import clip_probability, make_listener
        from crykit_bench.accuracy import labelled

        listener = make_listener(self.bundle, self.runtime)
        blocks: list[Any] = []
        listener.on_frames = blocks.append
        scores: list[float] = []
        for clip in labelled(Path(manifest), split):
            blocks.clear()
            listener.reset()
            listener.feed(read_clip(clip))
            listener.flush()
            frames = np.concatenate([block.cry_probability for block in blocks])
            scores.append(clip_probability(frames, self.bundle.manifest.clip))
        return scores

    def streams(self, paths: list[str], frames_out: str) -> list[dict[str, Any]]:
        """Events and duration of each recording, through the engine and the bundle's own gate.

        All frame probabilities are saved as `frames_out`, an .npy file.
        """
        from crykit.audio import open_audio
        from crykit.events import CryEvent
        from crykit.offline import events_of, make_listener

        listener = make_listener(self.bundle, self.runtime)
        frames: list[np.ndarray] = []
        listener.on_frames = lambda block: frames.append(block.cry_probability)
        found: list[dict[str, Any]] = []
        for path in paths:
            with open_audio(path, sample_rate_hz=self.bundle.manifest.sample_rate_hz) as source:
                events = [
                    (e.onset_s, e.offset_s)
                    for e in events_of(source, listener)
                    if isinstance(e, CryEvent)
                ]
                found.append({"events": events, "duration_s": source.duration_s})
        np.save(frames_out, np.concatenate(frames))
        return found


class Encoder:
    """An encoder over a window of noise, once for each such stretch of sound."""

    def __init__(self, subject: Subject) -> None:
        from crykit.bundle import EncoderBundle, open_any
        from crykit.runtime.clip import open_clip_model
        from crykit_bench.rows import window_samples

        bundle = open_any(subject.path, verify=False)
        assert isinstance(bundle, EncoderBundle)
        self._runtime = subject.runtime
        self._model = open_clip_model(bundle, subject.runtime, subject.precision, subject.threads)
        samples = window_samples(bundle, self._model.artefact)
        self.step_s = samples / bundle.manifest.sample_rate_hz
        rng = np.random.default_rng(0)
        self._samples = (0.05 * rng.standard_normal((1, samples))).astype(np.float32)

    def step(self) -> None:
        self._model.run(self._samples)

    def engine(self) -> str:
        return engine_of(self._runtime)


class Cnn14:
    """CNN14 over the last second, once a second. Random weights: it costs, it does not know."""

    step_s = 1.0

    def __init__(self, subject: Subject) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = subject.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            subject.path, sess_options=options, providers=["CPUExecutionProvider"]
        )
        shape = self._session.get_inputs()[0].shape
        rng = np.random.default_rng(0)
        self._samples = (0.05 * rng.standard_normal(shape)).astype(np.float32)

    def step(self) -> None:
        self._session.run(None, {"samples": self._samples})

    def engine(self) -> str:
        return engine_of("onnx")


def engine_of(runtime: str) -> str:
    """What this process has loaded to run it, with its version."""
    if runtime != "executorch":
        package = {"onnx": "onnxruntime"}.get(runtime, runtime)
        return f"{package} {version(package)}"
    if "crykit_executorch" in sys.modules:
        return f"crykit-executorch {version('crykit-executorch')}"
    return f"executorch {version('executorch')}, its own Python runtime"


def apart(got: np.ndarray, expected: np.ndarray, threshold: float) -> dict[str, float]:
    """How far probabilities (frames,) are from those expected (frames,)."""
    # A NaN compares as false everywhere: let it count as infinitely far.
    off = np.nan_to_num(np.abs(got.astype(np.float64) - expected), nan=np.inf)
    same_side = (got >= threshold) == (expected >= threshold)
    return {
        "max_abs": float(off.max()),
        "mean_abs": float(off.mean()),
        "same_side_share": float(same_side.mean()),
        "frames": len(off),
    }
