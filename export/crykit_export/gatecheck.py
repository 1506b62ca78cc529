"""The gate that an artefact must pass: agreement with torch, measured in its own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crykit.errors import CrykitError, FaultFound
from crykit.manifest import Artefact, Tolerance
from crykit.scoring import group_bootstrap_auc
from crykit_export.golden import read_golden_expected
from crykit_export.replay import Floats, Replay, labelled_clips, replay

INT8_MAX_ABS = 0.25
"""An int8 artefact that strays further than this on the golden clip is broken, not quantised."""
INT8_MAX_AUC_LOSS = 0.002
EMBEDDING_RELATIVE = 1e-3
"""Of the largest embedding value, for fp32."""
SCORE_SPLIT = "val"


@dataclass(frozen=True)
class ClipTruth:
    """Labels of the clips that score loss is measured on."""

    manifest: Path
    labels: list[bool]
    groups: list[str]


def check_artefacts(
    stage: Path,
    artefacts: Sequence[Artefact],
    manifest: Path | None,
    calibrated_on: str,
    say: Callable[[str], None],
) -> list[Artefact]:
    """Replay each artefact of a staged bundle; return them with what was measured.

    Args:
        manifest: labelled clips, whose val split tells what int8 costs.
        calibrated_on: in words, for the justification.

    Raises:
        FaultFound: naming every artefact that fails and by how much.
    """
    truth = _truth(manifest) if any(a.precision == "int8" for a in artefacts) else None
    reference = replay(stage, "torch", "fp32", _clips(truth))
    measured: list[Artefact] = []
    faults: list[str] = []
    for artefact in artefacts:
        label = artefact.label
        try:
            clips = _clips(truth) if artefact.precision == "int8" else None
            heard = replay(
                stage, artefact.runtime, artefact.precision, clips, artefact.step_samples
            )
            passed = _check(artefact, heard, reference, stage, truth, calibrated_on)
        except CrykitError as error:
            faults.append(str(error))
            say(f"{label}: FAILED")
            continue
        measured.append(passed)
        say(f"{label}: agrees, max abs {passed.scores['golden_max_abs']:.2g}")
    if faults:
        raise FaultFound(f"nothing was written: {'; '.join(faults)}")
    return measured


def _clips(truth: ClipTruth | None) -> tuple[Path, str] | None:
    return (truth.manifest, SCORE_SPLIT) if truth else None


def _truth(manifest: Path | None) -> ClipTruth | None:
    clips = labelled_clips(manifest, SCORE_SPLIT) if manifest else []
    labels = [clip.event == "cry" for clip in clips]
    if manifest is None or all(labels) or not any(labels):
        return None
    return ClipTruth(manifest, labels, [clip.group for clip in clips])


def _check(
    artefact: Artefact,
    heard: Replay,
    reference: Replay,
    stage: Path,
    truth: ClipTruth | None,
    calibrated_on: str,
) -> Artefact:
    label = artefact.label
    expected = read_golden_expected(stage)
    max_abs, mean_abs = _difference(heard.cry_probability, expected["cry_probability"], label)
    scores: dict[str, Any] = {"golden_max_abs": max_abs, "golden_mean_abs": mean_abs}
    if artefact.precision == "fp32":
        limit = artefact.tolerance.cry_probability_max_abs
        if max_abs > limit:
            raise FaultFound(f"{label} is {max_abs:.2g} from torch; {limit:g} is allowed")
        scale = float(np.abs(expected["embedding"]).max())
        off, _ = _difference(heard.embedding, expected["embedding"], label)
        if off > EMBEDDING_RELATIVE * max(scale, 1.0):
            raise FaultFound(
                f"{label} embeds {off:.2g} from torch; the largest value is {scale:.2g}"
            )
        return msgspec.structs.replace(artefact, scores=scores)
    if max_abs > INT8_MAX_ABS:
        raise FaultFound(f"{label} is {max_abs:.2g} from torch; {INT8_MAX_ABS:g} is allowed")
    if truth:
        scores.update(_clip_scores(label, heard, reference, truth))
    tolerance = _int8_tolerance(max_abs, mean_abs, scores, calibrated_on)
    return msgspec.structs.replace(artefact, scores=scores, tolerance=tolerance)


def _difference(heard: Floats, expected: Floats, label: str) -> tuple[float, float]:
    """Largest and mean absolute difference."""
    if heard.shape != expected.shape:
        raise FaultFound(f"{label} gives outputs {heard.shape}, torch {expected.shape}")
    if not np.isfinite(heard).all():
        raise FaultFound(f"{label} gives numbers that are not finite")
    apart = np.abs(heard.astype(np.float64) - expected)
    return float(apart.max()), float(apart.mean())


def _clip_scores(label: str, heard: Replay, reference: Replay, truth: ClipTruth) -> dict[str, Any]:
    value, low, high, groups = group_bootstrap_auc(truth.labels, heard.clip_scores, truth.groups)
    before, *_ = group_bootstrap_auc(truth.labels, reference.clip_scores, truth.groups, n=1)
    loss = before - value
    if loss > INT8_MAX_AUC_LOSS:
        raise FaultFound(
            f"{label} loses {loss:.4f} of clip AUC ({value:.4f} against {before:.4f}); "
            f"{INT8_MAX_AUC_LOSS:g} is allowed"
        )
    return {
        "split": SCORE_SPLIT,
        "clip_auc": value,
        "clip_auc_ci95": [low, high],
        "clip_auc_torch_fp32": before,
        "clip_auc_loss": loss,
        "clips": len(truth.labels),
        "groups": groups,
    }


def _int8_tolerance(
    max_abs: float, mean_abs: float, scores: dict[str, Any], calibrated_on: str
) -> Tolerance:
    """Twice what was measured: kernels of another processor may round a step the other way."""
    limit = max(0.02, math.ceil(200.0 * max_abs) / 100.0)
    loss = (
        f"clip AUC on {scores['clips']} {scores['split']} clips of {scores['groups']} groups is "
        f"{scores['clip_auc']:.4f} against {scores['clip_auc_torch_fp32']:.4f} in torch fp32"
        if "clip_auc" in scores
        else "no labelled clips were given, so score loss was not measured"
    )
    return Tolerance(
        cry_probability_max_abs=limit,
        justification=(
            f"Post-training static int8, calibrated on {calibrated_on} with streamed states. "
            f"Measured on the golden clip: max abs {max_abs:.4f}, mean abs {mean_abs:.5f}; {loss}. "
            "The limit is twice the maximum measured, since processors round differently."
        ),
    )
