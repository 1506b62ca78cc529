"""A row's own process: it holds one model, does what it is asked, and answers in JSON lines.

`python -m crykit_bench.worker SUBJECT_JSON`, requests on stdin: `{"do": "time", "steps": 40}`.
Its own process, because peak memory belongs to a process and because runtimes that share one share
thread pools as well.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from crykit_bench.protocol import Subject, Timing


class Model(Protocol):
    """What can be timed: `step_s` seconds of audio at a time, over and over."""

    step_s: float

    def step(self) -> None: ...


def pin(core: int) -> None:
    """This process on one core with one thread, before any runtime makes its pool."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def peak_memory_bytes() -> int:
    """Most memory this process has held.

    From /proc where there is one: `ru_maxrss` of a child starts at what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Student:
    """A bundle under one of its runtimes, playing the golden clip round and round."""

    def __init__(self, subject: Subject) -> None:
        from crykit.bundle import Bundle
        from crykit.offline import make_listener
        from crykit.runtime import open_runtime
        from crykit.verification import read_golden

        # The bench has compared the digests; doing it again would count as this row's memory.
        self.bundle = Bundle.open(subject.path, verify=False)
        manifest = self.bundle.manifest
        self.runtime = open_runtime(self.bundle, subject.runtime, subject.precision, threads=1)
        self.listener = make_listener(self.bundle, self.runtime)
        self.step_s = manifest.step_samples / manifest.sample_rate_hz
        golden, self._expected = read_golden(self.bundle)
        self._steps = list(golden.reshape(-1, manifest.step_samples))
        self._state = self.runtime.initial_state()
        self._next = 0

    def step(self) -> None:
        _, self._state = self.runtime.step(self._steps[self._next], self._state)
        self._next = (self._next + 1) % len(self._steps)

    def golden(self) -> dict[str, float]:
        """How far the probabilities are from torch's on the golden clip."""
        state = self.runtime.initial_state()
        heard: list[np.ndarray] = []
        for samples in self._steps:
            output, state = self.runtime.step(samples, state)
            heard.append(output.cry_probability)
        apart = np.abs(np.concatenate(heard) - self._expected["cry_probability"])
        # A NaN compares as false everywhere: let it count as infinitely far.
        apart = np.nan_to_num(apart, nan=np.inf)
        return {"max_abs": float(apart.max()), "mean_abs": float(apart.mean())}

    def clips(self, manifest: str, split: str) -> list[float]:
        """The clip score of each labelled clip of a split."""
        from crykit.dataset import read_clip
        from crykit.offline import clip_probability
        from crykit_bench.accuracy import labelled

        blocks: list[Any] = []
        self.listener.on_frames = blocks.append
        scores: list[float] = []
        for clip in labelled(Path(manifest), split):
            blocks.clear()
            self.listener.reset()
            self.listener.feed(read_clip(clip))
            self.listener.flush()
            frames = np.concatenate([block.cry_probability for block in blocks])
            scores.append(clip_probability(frames, self.bundle.manifest.clip))
        self.listener.on_frames = None
        return scores

    def streams(self, paths: list[str]) -> list[dict[str, Any]]:
        """Events and duration of each recording, through the engine and the bundle's own gate."""
        from crykit.audio import open_audio
        from crykit.events import CryEvent
        from crykit.offline import events_of

        found: list[dict[str, Any]] = []
        for path in paths:
            with open_audio(path, sample_rate_hz=self.bundle.manifest.sample_rate_hz) as source:
                events = [
                    (e.onset_s, e.offset_s)
                    for e in events_of(source, self.listener)
                    if isinstance(e, CryEvent)
                ]
                found.append({"events": events, "duration_s": source.duration_s})
        return found


class Cnn14:
    """CNN14 over the last second, once a second. Random weights: it costs, it does not know."""

    step_s = 1.0

    def __init__(self, subject: Subject) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
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


def measure(model: Model, steps: int) -> Timing:
    """Wall time of each step, CPU time of them all."""
    wall_ms: list[float] = []
    cpu_before = time.process_time()
    for _ in range(steps):
        before = time.perf_counter()
        model.step()
        wall_ms.append(1000.0 * (time.perf_counter() - before))
    return Timing(wall_ms, 1000.0 * (time.process_time() - cpu_before), model.step_s)


def answer(model: Student | Cnn14, request: dict[str, Any]) -> Any:
    """Do one request."""
    match request:
        case {"do": "time", "steps": steps}:
            return measure(model, steps)
        case {"do": "memory"}:
            return peak_memory_bytes()
        case {"do": "golden"} if isinstance(model, Student):
            return model.golden()
        case {"do": "clips", "manifest": manifest, "split": split} if isinstance(model, Student):
            return model.clips(manifest, split)
        case {"do": "streams", "paths": paths} if isinstance(model, Student):
            return model.streams(paths)
    raise ValueError(f"no such request: {request}")


def main(argument: str) -> None:
    subject = msgspec.json.decode(argument, type=Subject)
    # Answers go out on what was stdout; libraries that print there now print on stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pin(subject.core)
    model = Cnn14(subject) if subject.id.startswith("cnn14") else Student(subject)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        reply = msgspec.json.encode(answer(model, json.loads(line)))
        print(reply.decode(), file=answers, flush=True)


if __name__ == "__main__":
    from crykit.errors import CrykitError

    try:
        main(sys.argv[1])
    except CrykitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
