"""Golden clips through graphs that hear a whole clip at once."""

from __future__ import annotations

import msgspec
import numpy as np

from crykit.bundle import Bundle, EncoderBundle
from crykit.errors import CrykitError
from crykit.runtime.clip import open_clip_model
from crykit.verification import Check, Subject, read_golden


def check_clip(bundle: Bundle | EncoderBundle, subject: Subject) -> Check:
    """Hear the golden clip in one go and compare every output that torch's answers have.

    What an output may stray is a share of its largest value: embeddings have no scale of their own.
    """
    try:
        samples, expected = read_golden(bundle)
        model = open_clip_model(bundle, subject.runtime, subject.precision)
        heard = model.run(samples[np.newaxis])
    except CrykitError as error:
        return subject.check(ok=False, detail=" ".join(str(error).split()))
    common = sorted(set(heard) & set(expected))
    if not common:
        return subject.check(ok=False, detail="none of its outputs has a golden answer")
    worst = 0.0
    for name in common:
        # A detector's answers were made step by step, one clip without a batch.
        got, right = np.squeeze(heard[name]), np.squeeze(expected[name])
        if got.shape != right.shape:
            detail = f"{name}: expected the shape {right.shape}, got {got.shape}"
            return subject.check(ok=False, detail=detail)
        scale = max(float(np.abs(right).max()), 1e-6)
        apart = float(np.abs(got.astype(np.float64) - right).max()) / scale
        worst = apart if np.isnan(apart) else max(worst, apart)
    return Check(
        check="golden",
        ok=bool(worst <= model.artefact.tolerance),  # a NaN is no agreement
        max_abs=worst,
        tolerance=model.artefact.tolerance,
        **msgspec.structs.asdict(subject),
    )
