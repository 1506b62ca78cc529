"""A network of the student's kind, small enough to export in seconds, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from crykit.nn.frontend import LogMelFrontEnd
from crykit.nn.student import CryStudent, StudentConfig
from crykit.synth import synthetic_cry

TINY = StudentConfig(
    stem_channels=8,
    blocks=((8, 2, 1, True), (16, 2, 2, False), (16, 1, 2, False)),
    embedding_size=12,
    temporal_dilations=(1, 2),
)
N_CONVOLUTIONS = 12  # stem, 1 full, 2 x 2 separable, collapse, 2 x 2 over time, head


def tiny_student(seed: int = 2) -> CryStudent:
    """In evaluation mode, its batch norms having seen sound, its probabilities well spread."""
    torch.manual_seed(seed)
    student = CryStudent(TINY).train()
    front_end = LogMelFrontEnd("fft")
    audio = torch.stack(
        [torch.from_numpy(synthetic_cry(4.8, s, level_dbfs=-25.0)) for s in range(4)]
    )
    audio = audio + 0.003 * torch.randn(audio.shape)
    with torch.no_grad():
        features = front_end(audio, *front_end.initial_state(4))[0]
        for _ in range(20):
            student(features, *student.initial_state(4))
        student.eval()
        logits = student.logits(features, *student.initial_state(4))[0]
        student.head.weight.mul_(0.5 / logits.std())
        student.head.bias.sub_(0.5 * logits.mean() / logits.std())
    return student


def write_run(folder: Path, student: CryStudent | None = None) -> Path:
    """A finished training run, as `crykit train` leaves it."""
    student = student or tiny_student()
    folder.mkdir(parents=True)
    save_file(student.state_dict(), folder / "model.safetensors")
    record = {
        "name": "tiny",
        "description": "Random weights, for tests",
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
