"""Does a bundle do here what it did where it was made? Golden clips on every runtime."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from crykit.bundle import GOLDEN_EXPECTED, GOLDEN_INPUT, Bundle
from crykit.errors import CrykitError, InputError
from crykit.runtime import available_runtimes, open_runtime

TORCH_MAX_ABS = 1e-4
"""Torch made the expected values; another machine's kernels may round differently."""


class Check(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the report. `ok` is None where the check could not be made."""

    check: str
    ok: bool | None
    runtime: str | None = None
    precision: str | None = None
    max_abs: float | None = None
    tolerance: float | None = None
    embedding_max_abs: float | None = None
    step_ms: float | None = None
    detail: str | None = None


def verify_bundle(bundle: Bundle) -> list[Check]:
    """The digests, which `Bundle.open` has compared, then each runtime on the golden clip."""
    files = len(bundle.manifest.files)
    report = [Check(check="digests", ok=True, detail=f"{files} files")]
    for runtime, precision, missing in available_runtimes(bundle):
        if missing is None:
            report.append(check_golden(bundle, runtime, precision))
        else:
            report.append(_golden(runtime, precision, ok=None, detail=f"skipped: {missing}"))
    return report


def check_golden(bundle: Bundle, runtime: str, precision: str) -> Check:
    """Replay the golden clip and compare the probabilities with torch's, within the tolerance."""
    artefact = bundle.manifest.artefact(runtime, precision)
    tolerance = artefact.tolerance.cry_probability_max_abs if artefact else TORCH_MAX_ABS
    try:
        samples, expected = read_golden(bundle)
        got, step_ms = _replay(bundle, runtime, precision, samples)
    except CrykitError as error:
        return _golden(runtime, precision, ok=False, detail=str(error))
    for name, values in got.items():
        if values.shape != expected[name].shape:
            detail = f"{name}: expected the shape {expected[name].shape}, got {values.shape}"
            return _golden(runtime, precision, ok=False, detail=detail)
    max_abs = _max_abs(got["cry_probability"], expected["cry_probability"])
    return Check(
        check="golden",
        runtime=runtime,
        precision=precision,
        # A NaN on either side is no agreement.
        ok=bool(max_abs <= tolerance),
        max_abs=max_abs,
        tolerance=tolerance,
        embedding_max_abs=_max_abs(got["embedding"], expected["embedding"]),
        step_ms=round(step_ms, 3),
    )


def read_golden(bundle: Bundle) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The golden clip (n,) float32, a whole number of steps, and torch's answers to it.

    Raises:
        InputError: the bundle has none, or it does not fit the manifest.
    """
    import soundfile
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    manifest = bundle.manifest
    sound, answers = bundle.path(GOLDEN_INPUT), bundle.path(GOLDEN_EXPECTED)
    try:
        samples, rate_hz = soundfile.read(sound, dtype="float32")
        expected = load_file(answers)
    except (soundfile.SoundFileError, SafetensorError) as error:
        raise InputError(f"{bundle.folder}: the golden clip cannot be read: {error}") from None
    fits = rate_hz == manifest.sample_rate_hz and samples.ndim == 1 and len(samples)
    if not fits or len(samples) % manifest.step_samples:
        raise InputError(
            f"{sound}: expected whole steps of {manifest.step_samples} mono samples at "
            f"{manifest.sample_rate_hz} Hz, got {samples.shape} at {rate_hz} Hz"
        )
    if not {"cry_probability", "embedding"} <= set(expected):
        raise InputError(f"{answers}: expected cry_probability and embedding")
    return samples, expected


def _replay(
    bundle: Bundle, runtime: str, precision: str, samples: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs over the clip, and the mean time of a step in ms."""
    model = open_runtime(bundle, runtime, precision)
    step = model.step_samples
    state: Any = model.initial_state()
    probabilities: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    started = time.perf_counter()
    for start in range(0, len(samples), step):
        output, state = model.step(samples[start : start + step], state)
        probabilities.append(output.cry_probability)
        embeddings.append(output.embedding)
    step_ms = 1000.0 * (time.perf_counter() - started) / len(probabilities)
    got = {
        "cry_probability": np.concatenate(probabilities),
        "embedding": np.concatenate(embeddings),
    }
    return got, step_ms


def _max_abs(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))


def _golden(runtime: str, precision: str, *, ok: bool | None, detail: str) -> Check:
    return Check(check="golden", runtime=runtime, precision=precision, ok=ok, detail=detail)
