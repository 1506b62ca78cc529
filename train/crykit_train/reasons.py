"""What a detector's embedding knows of *why* a baby cries, measured so that it may be claimed.

A reason is claimed by a bundle only if the lower bound of this score clears the bar in its
manifest. Baby-disjoint folds: on parents' guesses, published scores fall to chance once no baby is
on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.dataset import Clip, read_clip
from crykit.errors import InputError
from crykit.nn.frontend import STEP_SAMPLES, LogMelFrontEnd
from crykit.nn.student import CryStudent
from crykit_train.probe.metrics import class_scores, summary
from crykit_train.probe.tasks import reasons

N_FOLDS = 5
STRENGTH = 0.01  # of the logistic regression; fixed, so that nothing is tuned on what is reported


def reason_evidence(model: CryStudent, clips: Sequence[Clip]) -> dict[str, Any] | None:
    """An evidence entry: macro one-versus-rest AUC of a linear probe on the pooled embedding.

    Args:
        clips: of every split. The detector may have heard a fold's babies, without their reasons.

    Returns:
        None where no cry has a reason, or too few babies have one for baby-disjoint folds.
    """
    try:
        tasks = [reasons(clips, fold, N_FOLDS, source=None) for fold in range(N_FOLDS)]
    except InputError:
        return None
    task = tasks[0]
    x = pooled_embeddings(model, task.clips)
    scores = np.zeros((len(task.clips), len(task.classes)))
    for one in tasks:
        test = one.fold == "test"
        probe = _fit(x[~test], task.targets[~test])
        scores[test] = class_scores(probe.predict_log_proba(x[test]))
    found = summary("auc", task.classes, task.targets, scores[None], task.groups)
    return {
        "head": "reasons",
        "metric": "macro one-versus-rest auc",
        "value": found["value"],
        "ci95": found["ci95"],
        "groups": found["groups"],
        "clips": found["clips"],
        "data": f"{', '.join(task.classes)}; {N_FOLDS} baby-disjoint folds, linear probe",
    }


def _fit(x: NDArray[np.float32], y: NDArray[np.int64]):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    ).fit(x, y)


@torch.inference_mode()
def pooled_embeddings(model: CryStudent, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Mean and maximum over time of the frame embeddings, (clips, 2 * size)."""
    model.eval()
    front_end = LogMelFrontEnd("fft")
    rows: list[NDArray[np.float32]] = []
    for clip in clips:
        samples = read_clip(clip)
        padded = np.zeros(-(-len(samples) // STEP_SAMPLES) * STEP_SAMPLES, np.float32)
        padded[: len(samples)] = samples
        features, *_ = front_end(torch.from_numpy(padded)[None], *front_end.initial_state(1))
        _, embedding, *_ = model(features, *model.initial_state(1))
        rows.append(torch.cat([embedding[0].mean(0), embedding[0].amax(0)]).numpy())
    return np.stack(rows)
