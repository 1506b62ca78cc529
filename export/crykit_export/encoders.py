"""An encoder as a bundle: waveform in, one embedding of it and one of each frame out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.numpy import save_file

from crykit.bundle import GOLDEN_EXPECTED, write_manifest
from crykit.errors import UsageError
from crykit.nn.frontend import HOP_SAMPLES, SAMPLE_RATE_HZ
from crykit.nn.pretrained import RECORD, Pretrained
from crykit_export.clip_replay import Floats
from crykit_export.clips import encoder_clip, write_clips
from crykit_export.golden import write_golden_clip
from crykit_export.model_card import CARD_NAME, encoder_card
from crykit_export.onnx_file import finish_onnx
from crykit_export.staging import staged_folder

PIECE_SAMPLES = 3 * SAMPLE_RATE_HZ
"""Beside the golden clip whole, two pieces of it at once show that batch and time are dynamic."""
LOWERS = ("audiontt2020", "audiontt2020-2block", "resnetish34")
"""Encoders that ExecuTorch 1.5 takes with clips of any length. Of the others its exporter would fix
the length (attention, the LSTM, the student's tracker), or XNNPACK would (CNN14's pooling)."""


@dataclass(frozen=True)
class EncoderPlan:
    """What to export and where. `name`, `version` and `licence` are the record's unless given."""

    out: Path
    runtimes: Sequence[str]
    name: str | None = None
    version: str | None = None
    licence: str | None = None
    replace: bool = False
    say: Callable[[str], None] = field(default=lambda line: None)


def is_encoder(path: Path) -> bool:
    """Whether a folder is a run that trained an encoder."""
    return (path / RECORD).is_file()


def export_encoder(pretrained: Pretrained, plan: EncoderPlan) -> Path:
    """Write `plan.out` and return it.

    Raises:
        UsageError: the encoder does not lower to a runtime, or the target exists.
        FaultFound: an artefact does not agree with torch; nothing is written.
    """
    name = pretrained.encoder.name
    if "executorch" in plan.runtimes and name not in LOWERS:
        raise UsageError(
            f"{name} does not lower to ExecuTorch with clips of any length, as "
            f"{', '.join(LOWERS)} do: give --to onnx"
        )
    graph = encoder_clip(pretrained)
    with staged_folder(plan.out, replace=plan.replace) as stage:
        golden = write_golden_clip(stage)
        pieces = np.stack([golden[:PIECE_SAMPLES], golden[PIECE_SAMPLES : 2 * PIECE_SAMPLES]])
        clips = {"golden": golden[None], "pieces": pieces}
        expected = {name: _in_torch(pretrained, clip) for name, clip in clips.items()}
        save_file(expected["golden"], stage / GOLDEN_EXPECTED)
        fields = encoder_fields(pretrained, plan)
        facts = {key: str(fields[key]) for key in ("name", "version", "licence", "sample_rate_hz")}
        artefacts = write_clips(
            lambda runtime: graph,
            plan.runtimes,
            stage,
            clips,
            expected,
            lambda path: finish_onnx(path, facts, fields["description"]),
            plan.say,
        )
        fields["clips"] = [msgspec.to_builtins(artefact) for artefact in artefacts]
        (stage / CARD_NAME).write_text(encoder_card(fields, stage), encoding="utf-8")
        write_manifest(stage, fields)
        for path in stage.rglob("*"):  # some writers leave files that only their owner may read
            path.chmod(0o755 if path.is_dir() else 0o644)
    return plan.out


def _in_torch(pretrained: Pretrained, clip: Floats) -> dict[str, Floats]:
    samples = torch.from_numpy(clip)
    with torch.inference_mode():
        embedding, (frames, _) = pretrained.embed(samples), pretrained.embed_frames(samples)
    return {"embedding": embedding.numpy(), "frames": frames.numpy()}


def encoder_fields(pretrained: Pretrained, plan: EncoderPlan) -> dict[str, Any]:
    """Everything the manifest says but its format version, digests and artefacts."""
    encoder, record = pretrained.encoder, pretrained.record
    return {
        "kind": "encoder",
        "name": plan.name or f"cry-encoder-{encoder.name}",
        "version": plan.version or "0.1.0",
        "licence": plan.licence or str(record.get("licence", "unknown")),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "description": f"Audio encoder {encoder.name}: an embedding of a recording and its frames",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "embedding_size": pretrained.size,
        "frame_size": encoder.frame_size,
        "hop_samples": encoder.hop_frames * HOP_SAMPLES,
        "centre_samples": encoder.centre_frames * HOP_SAMPLES,
        "architecture": {
            "kind": "encoder",
            **record["encoder"],
            "head": record["head"],
            "log_mel": record["log_mel"],
        },
        "training": {key: record.get(key) for key in ("objective", "stage", "leaky")},
    }
