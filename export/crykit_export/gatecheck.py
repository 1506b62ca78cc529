"""The gate that an artefact must pass: agreement with torch, measured in its own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crykit.errors import CrykitError, FaultFound
from crykit.manifest import Artefact, Tolerance
from crykit_export.golden import read_golden_expected
from crykit_export.held_out import HeldOut
from crykit_export.loss import measure_loss
from crykit_export.replay import Floats, Replay, replay

MAX_ABS = {"fp16": 0.02, "int8": 0.25}
"""An artefact that strays further than this on the golden clip is broken, not rounded."""
LEAST_TOLERANCE = {"fp16": 0.002, "int8": 0.02}
EMBEDDING_RELATIVE = 1e-3
"""Of the largest embedding value, for fp32."""
REFERENCE_STEP_SAMPLES = 16_000
"""Torch hears a second at a time: the same numbers in a third of the time."""


def check_artefacts(
    stage: Path,
    artefacts: Sequence[Artefact],
    held_out: HeldOut | None,
    made_by: dict[str, str],
    say: Callable[[str], None],
) -> list[Artefact]:
    """Replay each artefact of a staged bundle; return them with what was measured.

    Args:
        held_out: sound that tells what a smaller precision costs; needed where there is one.
        made_by: of each smaller precision, in words, for the justification.

    Raises:
        FaultFound: naming every artefact that fails and by how much.
    """
    full = None
    if any(a.precision != "fp32" for a in artefacts) and held_out:
        say(f"torch fp32: hearing {len(held_out.clips)} clips, {len(held_out.streams)} streams")
        full = replay(stage, "torch", "fp32", held_out, REFERENCE_STEP_SAMPLES)
    measured: list[Artefact] = []
    faults: list[str] = []
    for artefact in artefacts:
        smaller = artefact.precision != "fp32"
        try:
            heard = replay(
                stage,
                artefact.runtime,
                artefact.precision,
                held_out if smaller else None,
                artefact.step_samples,
            )
            passed = _check_full(artefact, heard, stage)
            if smaller and full and held_out:
                passed = _check_smaller(passed, heard, full, held_out, made_by)
        except CrykitError as error:
            faults.append(str(error))
            say(f"{artefact.label}: FAILED")
            continue
        measured.append(passed)
        say(f"{artefact.label}: {_summary(passed.scores)}")
    if faults:
        raise FaultFound(f"nothing was written: {'; '.join(faults)}")
    return measured


def _check_full(artefact: Artefact, heard: Replay, stage: Path) -> Artefact:
    """Agreement on the golden clip, which every precision must show."""
    label, expected = artefact.label, read_golden_expected(stage)
    max_abs, mean_abs = _difference(heard.cry_probability, expected["cry_probability"], label)
    limit = MAX_ABS.get(artefact.precision, artefact.tolerance.cry_probability_max_abs)
    if max_abs > limit:
        raise FaultFound(f"{label} is {max_abs:.2g} from torch; {limit:g} is allowed")
    off, _ = _difference(heard.embedding, expected["embedding"], label)
    scale = float(np.abs(expected["embedding"]).max())
    if artefact.precision == "fp32" and off > EMBEDDING_RELATIVE * max(scale, 1.0):
        raise FaultFound(f"{label} embeds {off:.2g} from torch; the largest value is {scale:.2g}")
    scores: dict[str, Any] = {"golden_max_abs": max_abs, "golden_mean_abs": mean_abs}
    return msgspec.structs.replace(artefact, scores=scores)


def _check_smaller(
    artefact: Artefact, heard: Replay, full: Replay, truth: HeldOut, made_by: dict[str, str]
) -> Artefact:
    """What it costs on held-out sound."""
    scores = artefact.scores | measure_loss(artefact.label, heard, full, truth)
    tolerance = _tolerance(artefact.precision, scores, made_by[artefact.precision])
    return msgspec.structs.replace(artefact, scores=scores, tolerance=tolerance)


def _difference(heard: Floats, expected: Floats, label: str) -> tuple[float, float]:
    """Largest and mean absolute difference."""
    if heard.shape != expected.shape:
        raise FaultFound(f"{label} gives outputs {heard.shape}, torch {expected.shape}")
    if not np.isfinite(heard).all():
        raise FaultFound(f"{label} gives numbers that are not finite")
    apart = np.abs(heard.astype(np.float64) - expected)
    return float(apart.max()), float(apart.mean())


def _summary(scores: dict[str, Any]) -> str:
    said = f"agrees, max abs {scores['golden_max_abs']:.2g}"
    if "time_f1_loss" in scores:
        said += (
            f"; loses {scores['clip_auc_loss']:+.4f} of clip AUC, {scores['time_f1_loss']:+.4f} of "
            f"time F1; false alarms {scores['false_alarms_torch_fp32']} before, "
            f"{scores['false_alarms']} after, in {scores['stream_hours']:.1f} h"
        )
    return said


def _tolerance(precision: str, scores: dict[str, Any], made_by: str) -> Tolerance:
    """Twice what was measured: kernels of another processor may round a step the other way."""
    max_abs = scores["golden_max_abs"]
    limit = max(LEAST_TOLERANCE[precision], math.ceil(2000.0 * max_abs) / 1000.0)
    return Tolerance(
        cry_probability_max_abs=limit,
        justification=(
            f"{made_by} Measured on the golden clip: max abs {max_abs:.4f}, mean abs "
            f"{scores['golden_mean_abs']:.5f}; clip AUC on {scores['clips']} {scores['split']} "
            f"clips of {scores['groups']} groups {scores['clip_auc']:.4f} against "
            f"{scores['clip_auc_torch_fp32']:.4f} in torch fp32; on {scores['stream_hours']:.1f} h "
            f"of streams time F1 {scores['time_f1']:.4f} against "
            f"{scores['time_f1_torch_fp32']:.4f}, false alarms {scores['false_alarms']} against "
            f"{scores['false_alarms_torch_fp32']}. The limit is twice the maximum measured, since "
            "processors round differently."
        ),
    )
