"""Play clips through one whole-clip artefact; run as a program, in a process of its own.

`python -m crykit_export.clip_replay FOLDER ARTEFACT.json CLIPS.safetensors OUT.safetensors`

The clips are tensors (batch, samples) by name; what comes out is named `CLIP/OUTPUT`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from crykit.errors import CrykitError, FaultFound
from crykit.manifest import ClipArtefact
from crykit.runtime.clip import open_clip

Floats = NDArray[np.float32]
Outputs = dict[str, dict[str, Floats]]
"""By clip, then by output."""
TIMEOUT_S = 1800


def check_clip(
    folder: Path, artefact: ClipArtefact, clips: dict[str, Floats], expected: Outputs
) -> ClipArtefact:
    """The artefact with its scores, once it agrees with torch on every clip.

    Raises:
        FaultFound: it does not run, or is further from torch than its tolerance.
    """
    label = f"{artefact.runtime} {artefact.precision} of whole clips"
    heard = replay_clips(folder, artefact, clips, label)
    scores: dict[str, float] = {}
    for name, outputs in expected.items():
        for output, right in outputs.items():
            got = heard[f"{name}/{output}"]
            if got.shape != right.shape:
                raise FaultFound(f"{label} gives {output} {got.shape}, torch {right.shape}")
            scale = max(float(np.abs(right).max()), 1e-6)
            apart = float(np.abs(got.astype(np.float64) - right).max()) / scale
            if not apart <= artefact.tolerance:  # a NaN is no agreement
                raise FaultFound(
                    f"{label}: {output} is {apart:.2g} of its largest value from torch; "
                    f"{artefact.tolerance:g} is allowed"
                )
            scores[output] = max(apart, scores.get(output, 0.0))
    return msgspec.structs.replace(artefact, scores={f"{k}_max": v for k, v in scores.items()})


def replay_clips(
    folder: Path, artefact: ClipArtefact, clips: dict[str, Floats], label: str
) -> dict[str, Floats]:
    """Replay in a fresh process; a broken artefact may take its process down with it."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / name for name in ("artefact.json", "clips", "out")]
        paths[0].write_bytes(msgspec.json.encode(artefact))
        save_file({name: np.ascontiguousarray(clip) for name, clip in clips.items()}, paths[1])
        command = [sys.executable, "-m", "crykit_export.clip_replay", str(folder)]
        done = subprocess.run(
            [*command, *map(str, paths)], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        if done.returncode != 0 or not paths[2].is_file():
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise FaultFound(f"{label} does not run: {lines[-1]}")
        return load_file(paths[2])


def main(arguments: Sequence[str]) -> None:
    folder, description, clips, out = map(Path, arguments)
    artefact = msgspec.json.decode(description.read_bytes(), type=ClipArtefact)
    model = open_clip(folder / artefact.file, artefact)
    heard = {
        f"{name}/{output}": np.ascontiguousarray(values)
        for name, clip in load_file(clips).items()
        for output, values in model.run(clip).items()
    }
    save_file(heard, out)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CrykitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
