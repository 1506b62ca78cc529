"""Scores of a detector on clips and on streams, every one with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.dataset import Clip, read_clip
from crykit.nn.frontend import STEP_SAMPLES, LogMelFrontEnd
from crykit.nn.student import FRAME_SAMPLES, CryStudent
from crykit.scoring import group_bootstrap_auc
from crykit_train.acoustics import Audio, Treatment, treat

BATCH_CLIPS = 16
MIN_POOL_FRAMES = 8
TOP_FRACTION = 0.5
BLOCK_STEPS = 250  # 40 s of a stream at a time


def clip_scores(
    model: CryStudent,
    clips: Sequence[Clip],
    *,
    gain_db: float = 0.0,
    low_pass_hz: float | None = None,
    top_fraction: float = TOP_FRACTION,
) -> NDArray[np.float64]:
    """Cry score of each clip, (clips,): the mean of its highest frame probabilities.

    Args:
        gain_db: applied to every clip first.
        low_pass_hz: applied to every clip first, cries and negatives alike.
        top_fraction: share of a clip's frames that is averaged, at least 8 of them.
    """
    model.eval()
    front_end = LogMelFrontEnd("fft")
    order = np.argsort([clip.number("duration_s", 0.0) for clip in clips], kind="stable")
    scores = np.zeros(len(clips))
    for start in range(0, len(order), BATCH_CLIPS):
        batch = order[start : start + BATCH_CLIPS]
        audio = [_alter(read_clip(clips[i]), gain_db, low_pass_hz) for i in batch]
        for i, frames in zip(batch, frame_probabilities(model, front_end, audio), strict=True):
            scores[i] = pool(frames, top_fraction)
    return scores


def _alter(samples: Audio, gain_db: float, low_pass_hz: float | None) -> Audio:
    if low_pass_hz is not None:
        samples = treat(samples, Treatment(low_pass_hz=low_pass_hz))
    return samples * np.float32(10 ** (gain_db / 20))


def pool(probabilities: NDArray[np.float32], top_fraction: float) -> float:
    """Mean of the highest ``top_fraction`` of the frames, at least 8 (all, if there are fewer)."""
    k = max(MIN_POOL_FRAMES, round(top_fraction * len(probabilities)))
    return float(np.sort(probabilities)[-k:].mean())


@torch.inference_mode()
def frame_probabilities(
    model: CryStudent, front_end: LogMelFrontEnd, audio: Sequence[Audio]
) -> list[NDArray[np.float32]]:
    """Cry probability of each 40 ms frame of each recording, from a fresh state."""
    longest = max(len(a) for a in audio)
    padded = np.zeros((len(audio), -(-longest // STEP_SAMPLES) * STEP_SAMPLES), np.float32)
    for row, samples in zip(padded, audio, strict=True):
        row[: len(samples)] = samples
    state: Sequence[torch.Tensor] = front_end.initial_state(len(audio))
    memory = model.initial_state(len(audio))
    out: list[torch.Tensor] = []
    block = BLOCK_STEPS * STEP_SAMPLES
    for start in range(0, padded.shape[1], block):
        features, *state = front_end(torch.from_numpy(padded[:, start : start + block]), *state)
        probabilities, _, *memory = model(features, *memory)
        out.append(probabilities)
    frames = torch.cat(out, dim=1).numpy()
    return [
        row[: -(-len(samples) // FRAME_SAMPLES)] for row, samples in zip(frames, audio, strict=True)
    ]


def summarise_clips(clips: Sequence[Clip], scores: NDArray[np.float64]) -> dict[str, Any]:
    """AUC of cry against everything else, and against each class of negatives, with intervals."""
    is_cry = np.array([clip.event == "cry" for clip in clips])
    groups = [clip.group for clip in clips]
    against: dict[str, Any] = {}
    for event in sorted({clip.event for clip in clips} - {"cry"}):
        picked = is_cry | np.array([clip.event == event for clip in clips])
        against[event] = _auc(is_cry[picked], scores[picked], np.array(groups)[picked].tolist())
    return {"auc": _auc(is_cry, scores, groups), "against": against}


def _auc(labels: NDArray[np.bool_], scores: NDArray[np.float64], groups: list[str]) -> dict:
    value, low, high, n_groups = group_bootstrap_auc(labels, scores, groups)
    cry_groups = {g for g, is_cry in zip(groups, labels, strict=True) if is_cry}
    return {
        "value": round(value, 4),
        "ci95": [round(low, 4), round(high, 4)],
        "groups": n_groups,
        "cry_groups": len(cry_groups),
        "clips": len(groups),
    }
