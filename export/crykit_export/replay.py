"""Play the golden clip, and labelled clips if given, through one artefact; run as a program.

`python -m crykit_export.replay BUNDLE RUNTIME PRECISION STEP OUT [MANIFEST SPLIT]`

Each artefact is replayed in a process of its own: a broken one may take its process down with it,
and two runtimes in one process share thread pools and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from crykit.bundle import Bundle
from crykit.dataset import Clip, read_clip, read_manifest
from crykit.errors import CrykitError, FaultFound
from crykit.listener import FrameBlock
from crykit.offline import clip_probability, make_listener
from crykit.runtime import Runtime, open_runtime
from crykit_export.golden import read_golden_input

Floats = NDArray[np.float32]
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Replay:
    """Outputs of one artefact: on the golden clip, and a score for each labelled clip."""

    cry_probability: Floats
    embedding: Floats
    clip_scores: Floats


def labelled_clips(manifest: Path, split: str) -> list[Clip]:
    """Clips of a split whose event is known."""
    return [c for c in read_manifest(manifest) if c.split == split and c.event != "unverified"]


def replay(
    folder: Path,
    runtime: str,
    precision: str,
    clips: tuple[Path, str] | None,
    step_samples: int | None = None,
) -> Replay:
    """Replay in a fresh process.

    Args:
        folder: a complete bundle, finished or staged.
        clips: a manifest and the split whose clips are scored too.
        step_samples: heard at a time, if not the manifest's own step.

    Raises:
        FaultFound: the process failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "replay.safetensors"
        command = [str(folder), runtime, precision, str(step_samples or 0), str(out)]
        command += [str(clips[0]), clips[1]] if clips else []
        done = subprocess.run(
            [sys.executable, "-m", "crykit_export.replay", *command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0 or not out.is_file():
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise FaultFound(f"{runtime} {precision} does not run: {lines[-1]}")
        return Replay(**load_file(out))


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


def _score(runtime: Runtime, bundle: Bundle, clips: Sequence[Clip]) -> Floats:
    listener = make_listener(bundle, runtime)
    heard: list[FrameBlock] = []
    listener.on_frames = heard.append
    scores: list[float] = []
    for clip in clips:
        heard.clear()
        listener.reset()
        listener.feed(read_clip(clip))
        listener.flush()
        frames = np.concatenate([block.cry_probability for block in heard])
        scores.append(clip_probability(frames, bundle.manifest.clip))
    return np.asarray(scores, np.float32)


def main(arguments: Sequence[str]) -> None:
    folder, runtime_name, precision, step, out, *labelled = arguments
    bundle = Bundle.open(folder)
    runtime = open_runtime(bundle, runtime_name, precision, 1, int(step) or None)
    golden = read_golden_input(bundle.folder)
    probability, embedding = play(runtime, golden, runtime.step_samples)
    clips = labelled_clips(Path(labelled[0]), labelled[1]) if labelled else []
    result = {
        "cry_probability": probability,
        "embedding": embedding,
        "clip_scores": _score(runtime, bundle, clips),
    }
    save_file(result, out)
    print(json.dumps({"frames": len(probability), "clips": len(clips)}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CrykitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
