"""What a smaller precision costs: clip AUC, time F1, false alarms and embeddings, both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.errors import FaultFound
from crykit.scoring import (
    EventScore,
    Span,
    group_bootstrap_auc,
    poisson_upper_bound,
    score_events,
    total,
)
from crykit_export.held_out import SPLIT, HeldOut
from crykit_export.replay import Replay

MAX_AUC_LOSS = 0.002
MAX_TIME_F1_LOSS = 0.005
MAX_ALARMS_GAIN_PER_HOUR = 0.5
"""False alarms beyond those of full precision; one alone proves nothing and is always allowed."""
WAYS_OUT = (
    "fine-tune it with quantisation_aware = true in the recipe's [train], or keep blocks in "
    "floating point with --quantise RECIPE.toml"
)


def measure_loss(label: str, heard: Replay, full: Replay, truth: HeldOut) -> dict[str, Any]:
    """Both sides and their differences, as an artefact's `scores` has them.

    Args:
        label: of the artefact, for messages.
        heard: what it made of the held-out sound.
        full: what torch fp32 made of it.

    Raises:
        FaultFound: it loses more than is allowed, or full precision hears nothing to lose.
    """
    scores = {
        "split": SPLIT,
        **_clips(heard, full, truth),
        **_streams(heard, full, truth),
        **embedding_agreement(heard.clip_embeddings, full.clip_embeddings),
    }
    if not scores["time_f1_torch_fp32"]:
        raise FaultFound(
            f"{label}: torch fp32 finds no cry in these streams, so no loss could be seen; give "
            "streams that it hears, or gate settings that let it"
        )
    too_much = _too_much(scores)
    if too_much:
        raise FaultFound(f"{label} {' and '.join(too_much)}; {WAYS_OUT}")
    return scores


def _too_much(scores: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, words, limit in (
        ("clip_auc", "clip AUC", MAX_AUC_LOSS),
        ("time_f1", "time F1", MAX_TIME_F1_LOSS),
    ):
        if scores[f"{name}_loss"] > limit:
            found.append(
                f"loses {scores[f'{name}_loss']:.4f} of {words} ({scores[name]:.4f} against "
                f"{scores[f'{name}_torch_fp32']:.4f}; {limit:g} is allowed)"
            )
    more = scores["false_alarms"] - scores["false_alarms_torch_fp32"]
    allowed = max(1.0, MAX_ALARMS_GAIN_PER_HOUR * scores["stream_hours"])
    if more > allowed:
        found.append(
            f"gives {more} false alarms more in {scores['stream_hours']:.1f} h "
            f"({scores['false_alarms']} against {scores['false_alarms_torch_fp32']}; "
            f"{int(allowed)} more are allowed)"
        )
    return found


def _clips(heard: Replay, full: Replay, truth: HeldOut) -> dict[str, Any]:
    value, low, high, groups = group_bootstrap_auc(truth.labels, heard.clip_scores, truth.groups)
    before, *_ = group_bootstrap_auc(truth.labels, full.clip_scores, truth.groups, n=1)
    return {
        "clips": len(truth.clips),
        "groups": groups,
        "clip_auc": value,
        "clip_auc_ci95": [low, high],
        "clip_auc_torch_fp32": before,
        "clip_auc_loss": before - value,
    }


def _streams(heard: Replay, full: Replay, truth: HeldOut) -> dict[str, Any]:
    after = score_spans(heard.stream_spans, heard.stream_seconds, truth)
    before = score_spans(full.stream_spans, full.stream_seconds, truth)
    hours = after.duration_s / 3600.0
    return {
        "streams": len(truth.streams),
        "stream_hours": hours,
        "stream_split": truth.stream_split,
        "stream_groups": truth.stream_groups,
        "bouts": after.ref,
        "found": after.hit,
        "found_torch_fp32": before.hit,
        "time_f1": after.time_f1,
        "time_f1_torch_fp32": before.time_f1,
        "time_f1_loss": before.time_f1 - after.time_f1,
        "false_alarms": after.false_alarms,
        "false_alarms_torch_fp32": before.false_alarms,
        "false_alarms_per_hour": after.false_alarms / hours,
        "false_alarms_per_hour_torch_fp32": before.false_alarms / hours,
        "false_alarms_per_hour_upper95": poisson_upper_bound(after.false_alarms, hours),
    }


def score_spans(
    spans: Sequence[Sequence[Span]], seconds: Sequence[float], truth: HeldOut
) -> EventScore:
    """The streams' scores added up; `spans` and `seconds` are in their order."""
    return total(
        score_events(stream.reference, found, length)
        for stream, found, length in zip(truth.streams, spans, seconds, strict=True)
    )


def embedding_agreement(heard: NDArray[np.float32], full: NDArray[np.float32]) -> dict[str, float]:
    """Cosine of pooled embeddings, (clips, size) each: their size differs from clip to clip."""
    norms = np.linalg.norm(heard, axis=1) * np.linalg.norm(full, axis=1)
    cosine = (heard * full).sum(axis=1) / np.maximum(norms, 1e-12)
    return {
        "embedding_cosine_mean": float(cosine.mean()),
        "embedding_cosine_min": float(cosine.min()),
    }
