"""Play sound through one artefact in a process of its own; run as a program.

`python -m crykit_export.replay JOB.json OUT.safetensors`

Each artefact is replayed in a process of its own: a broken one may take its process down with it,
and two runtimes in one process share thread pools and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from crykit.bundle import Bundle
from crykit.dataset import Clip, read_clip
from crykit.errors import CrykitError, FaultFound
from crykit.events import CryEvent
from crykit.listener import Listener
from crykit.offline import clip_probability, events_of, frames_of, make_listener, scene_embedding
from crykit.runtime import Runtime, open_runtime
from crykit.scoring import Span
from crykit_export.golden import read_golden_input
from crykit_export.held_out import HeldOut

Floats = NDArray[np.float32]
TIMEOUT_S = 7200
BLOCK_SAMPLES = 1_600_000
ODD_CHUNKS = (1, 639, 2560, 4000, 7, 16_000, 333)
"""In samples, round and round: what a stream is cut into must not matter."""


@dataclass(frozen=True)
class Replay:
    """Outputs of one artefact: on the golden clip, on each labelled clip, on each stream."""

    cry_probability: Floats
    embedding: Floats
    clip_scores: Floats
    clip_embeddings: Floats
    stream_spans: list[list[Span]]
    stream_seconds: list[float]


def replay(
    folder: Path,
    runtime: str,
    precision: str,
    held_out: HeldOut | None = None,
    step_samples: int | None = None,
) -> Replay:
    """Replay in a fresh process.

    Args:
        folder: a complete bundle, finished or staged.
        held_out: clips and streams to hear beside the golden clip.
        step_samples: heard at a time, if not the manifest's own step.

    Raises:
        FaultFound: the process failed; the message has its last line.
    """
    job = {
        "folder": str(folder),
        "runtime": runtime,
        "precision": precision,
        "step_samples": step_samples,
        "clips": [str(clip.path) for clip in held_out.clips] if held_out else [],
        "streams": [str(stream.audio) for stream in held_out.streams] if held_out else [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        asked, out = Path(scratch) / "job.json", Path(scratch) / "replay.safetensors"
        asked.write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, "-m", "crykit_export.replay", str(asked), str(out)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0 or not out.is_file():
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise FaultFound(f"{runtime} {precision} does not run: {lines[-1]}")
        found = load_file(out)
    spans = [found.pop(f"spans_{i}").tolist() for i in range(len(job["streams"]))]
    seconds = found.pop("stream_seconds").tolist()
    return Replay(**found, stream_spans=spans, stream_seconds=seconds)


def play(runtime: Runtime, audio: Floats, step_samples: int) -> tuple[Floats, Floats]:
    """Probabilities and embeddings of whole steps of audio, from fresh state."""
    state = runtime.initial_state()
    probabilities: list[Floats] = []
    embeddings: list[Floats] = []
    for start in range(0, len(audio), step_samples):
        output, state = runtime.step(audio[start : start + step_samples], state)
        probabilities.append(output.cry_probability)
        embeddings.append(output.embedding)
    return np.concatenate(probabilities), np.concatenate(embeddings)


def check_chunking(listener: Listener, audio: Floats, stepped: Floats) -> None:
    """Cut into any chunks, a stream must give the very numbers that it gives step by step.

    Raises:
        FaultFound: it does not.
    """
    chunked, _ = frames_of(_chunks(audio), listener)
    if not np.array_equal(chunked, stepped):
        raise FaultFound("a stream cut into odd chunks gives other numbers than step by step")


def _chunks(audio: Floats) -> Iterator[Floats]:
    start = turn = 0
    while start < len(audio):
        end = start + ODD_CHUNKS[turn % len(ODD_CHUNKS)]
        yield audio[start:end]
        start, turn = end, turn + 1


def _hear_clips(listener: Listener, bundle: Bundle, paths: Sequence[str]) -> dict[str, Floats]:
    scores: list[float] = []
    embeddings: list[Floats] = []
    for path in paths:
        probability, embedding = frames_of([_read(path)], listener)
        scores.append(clip_probability(probability, bundle.manifest.clip))
        embeddings.append(scene_embedding(embedding))
    size = 2 * bundle.manifest.embedding_size
    return {
        "clip_scores": np.asarray(scores, np.float32),
        "clip_embeddings": np.asarray(embeddings, np.float32).reshape(len(paths), size),
    }


def _hear_streams(listener: Listener, paths: Sequence[str]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    seconds: list[float] = []
    for index, path in enumerate(paths):
        audio = _read(path)
        blocks = (audio[at : at + BLOCK_SAMPLES] for at in range(0, len(audio), BLOCK_SAMPLES))
        spans = [
            (event.onset_s, event.offset_s)
            for event in events_of(blocks, listener)
            if isinstance(event, CryEvent)
        ]
        found[f"spans_{index}"] = np.asarray(spans, np.float64).reshape(len(spans), 2)
        seconds.append(len(audio) / listener.sample_rate_hz)
    return {**found, "stream_seconds": np.asarray(seconds, np.float64)}


def _read(path: str) -> Floats:
    return read_clip(Clip(Path(path), "", "", "", "", "", "", "", {}))


def main(arguments: Sequence[str]) -> None:
    job, out = json.loads(Path(arguments[0]).read_bytes()), arguments[1]
    bundle = Bundle.open(job["folder"])
    runtime = open_runtime(bundle, job["runtime"], job["precision"], 1, job["step_samples"])
    golden = read_golden_input(bundle.folder)
    probability, embedding = play(runtime, golden, runtime.step_samples)
    listener = make_listener(bundle, runtime)
    check_chunking(listener, golden, probability)
    result = {
        "cry_probability": probability,
        "embedding": embedding,
        **_hear_clips(listener, bundle, job["clips"]),
        **_hear_streams(listener, job["streams"]),
    }
    save_file(result, out)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CrykitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
