"""The golden clip: a synthetic sound and what torch makes of it, to which every runtime is held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from crykit.bundle import GOLDEN_EXPECTED, GOLDEN_INPUT
from crykit.nn.frontend import SAMPLE_RATE_HZ, STEP_SAMPLES, LogMelFrontEnd
from crykit.nn.student import CryStudent
from crykit.synth import synthetic_cry

GOLDEN_STEPS = 50  # 8 s
# Whole frames of 40 ms of which the golden clip has a whole number.
STEPS_MS = (40, 80, 160, 200, 320, 400, 800, 1000)
SILENT_STEPS = 4
CRY_START_S, CRY_LENGTH_S = 1.6, 4.8
CRY_DBFS, FLOOR_DBFS = -28.0, -58.0
SEED = 2025


def golden_clip() -> NDArray[np.float32]:
    """Eight seconds: a quiet room, a synthetic cry in it, the room again, then digital silence.

    Nothing in it is recorded.
    """
    rng = np.random.default_rng(SEED)
    n_samples = GOLDEN_STEPS * STEP_SAMPLES
    audio = rng.standard_normal(n_samples) * 10.0 ** (FLOOR_DBFS / 20.0)
    cry = synthetic_cry(CRY_LENGTH_S, SEED, level_dbfs=CRY_DBFS)
    start = round(CRY_START_S * SAMPLE_RATE_HZ)
    audio[start : start + len(cry)] += cry
    # Digital silence, with nothing to take the logarithm of, is where a front end goes wrong.
    audio[-SILENT_STEPS * STEP_SAMPLES :] = 0.0
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def write_golden_clip(folder: Path) -> NDArray[np.float32]:
    """Write the clip alone and return it as it was written."""
    path = folder / GOLDEN_INPUT
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, golden_clip(), SAMPLE_RATE_HZ, subtype="PCM_16")
    return read_golden_input(folder)


def write_golden(student: CryStudent, folder: Path) -> None:
    """Write the clip and torch's outputs for what the written file holds."""
    probability, embedding = stream(student, write_golden_clip(folder))
    save_file({"cry_probability": probability, "embedding": embedding}, folder / GOLDEN_EXPECTED)


def read_golden_input(folder: Path) -> NDArray[np.float32]:
    """The clip as written, (whole steps * 2560,)."""
    return np.asarray(soundfile.read(folder / GOLDEN_INPUT, dtype="float32")[0], np.float32)


def read_golden_expected(folder: Path) -> dict[str, NDArray[np.float32]]:
    return load_file(folder / GOLDEN_EXPECTED)


def stream(
    student: CryStudent, audio: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (n,) and embeddings (n, size) of whole steps, one step at a time, in torch."""
    front_end = LogMelFrontEnd("matmul").eval()
    heard, state = front_end.initial_state(1), student.initial_state(1)
    probabilities: list[torch.Tensor] = []
    embeddings: list[torch.Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(audio), STEP_SAMPLES):
            block = torch.from_numpy(audio[start : start + STEP_SAMPLES])[None]
            features, *heard = front_end(block, *heard)
            probability, embedding, *state = student(features, *state)
            probabilities.append(probability[0])
            embeddings.append(embedding[0])
    return torch.cat(probabilities).numpy(), torch.cat(embeddings).numpy()
