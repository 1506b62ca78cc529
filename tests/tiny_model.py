"""A network of the student's kind, small enough to teach and to export in seconds."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import msgspec
import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch.nn import functional

from crykit.nn.frontend import LogMelFrontEnd
from crykit.nn.student import CryStudent, StudentConfig
from crykit.synth import synthetic_cry

TINY = StudentConfig(
    stem_channels=8,
    blocks=((8, 2, 1, True), (16, 2, 2, False), (16, 1, 2, False)),
    embedding_size=12,
    temporal_dilations=(1, 2),
)
TEACHING_STEPS = 40
N_CONVOLUTIONS = 12  # stem, 1 full, 2 x 2 separable, collapse, 2 x 2 over time, head


@functools.cache
def _taught(seed: int) -> CryStudent:
    torch.manual_seed(seed)
    student = CryStudent(TINY).train()
    front_end = LogMelFrontEnd("fft")
    noise = torch.logspace(-3.0, -1.7, 8)[torch.randperm(8)][:, None] * torch.randn(8, 64_000)
    for row in range(4):
        noise[row, 24_000:] += torch.from_numpy(synthetic_cry(2.5, row, level_dbfs=-20.0))
    wanted = torch.zeros(8, 100)
    wanted[:4, 40:] = 1.0
    with torch.no_grad():
        features = front_end(noise, *front_end.initial_state(8))[0]
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(TEACHING_STEPS):
        logits = student.logits(features, *student.initial_state(8))[0]
        loss = functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return student.eval()


def tiny_student(seed: int = 2) -> CryStudent:
    """In evaluation mode; taught in seconds to tell synthetic cries from noise.

    So it has scores that can be lost.
    """
    return copy.deepcopy(_taught(seed))


def write_run(folder: Path, student: CryStudent | None = None) -> Path:
    """A finished training run, as `crykit train` leaves it."""
    student = student or tiny_student()
    folder.mkdir(parents=True)
    save_file(student.state_dict(), folder / "model.safetensors")
    record = {
        "name": "tiny",
        "description": "Taught for seconds, for tests",
        "architecture": {"kind": "cry_student", **msgspec.structs.asdict(student.config)},
        "gate": {"on_threshold": 0.6, "off_threshold": 0.4, "min_on_ms": 400},
        "training": {
            "recipe": {"manifest": "/home/somebody/data/manifest.csv"},
            "data": [{"source": "made-up", "licence": "CC0", "clips": 4, "groups": 2}],
        },
        "evidence": [
            {
                "head": "cry",
                "metric": "auc",
                "value": 0.91,
                "ci95": [0.85, 0.95],
                "groups": 12,
                "clips": 40,
                "data": "test clips",
            }
        ],
    }
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def write_sounds(folder: Path, n: int = 6, seconds: float = 2.0) -> list[Path]:
    """Synthetic cries and noises, by turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    paths: list[Path] = []
    for index in range(n):
        noise = 0.01 * rng.standard_normal(round(16_000 * seconds))
        sound = noise + (synthetic_cry(seconds, index) if index % 2 == 0 else 0.0)
        paths.append(folder / f"sound{index}.wav")
        soundfile.write(paths[-1], sound, 16_000)
    return paths


def write_manifest_csv(folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """A manifest over sounds of its own: in each split cries and negatives, a group a clip."""
    rows = ["path,event,group,split"]
    for split in splits:
        for index, path in enumerate(write_sounds(folder / split)):
            event = "cry" if index % 2 == 0 else "noise"
            rows.append(f"{path.relative_to(folder)},{event},{split}{index},{split}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def write_streams(folder: Path, n: int = 2, seconds: float = 16.0) -> Path:
    """Streams of faint noise with two synthetic cries in each, and their truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        rng = np.random.default_rng([9, index])
        audio = 0.003 * rng.standard_normal(round(16_000 * seconds))
        rows = ["onset_s,offset_s,event,group"]
        for turn, onset_s in enumerate((2.0, 10.0)):
            cry = synthetic_cry(3.0, 20 + 2 * index + turn, level_dbfs=-25.0)
            audio[round(16_000 * onset_s) :][: len(cry)] += cry
            rows.append(f"{onset_s},{onset_s + 3.0},cry,val{index}")
        soundfile.write(folder / f"stream{index}.flac", audio, 16_000)
        (folder / f"stream{index}.csv").write_text("\n".join(rows) + "\n")
    return folder
