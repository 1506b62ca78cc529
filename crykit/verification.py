"""Does a bundle do here what it did where it was made? Golden clips on every runtime.

Each runtime replays the clip in a process of its own, `python -m crykit.verification FOLDER RUNTIME
PRECISION STEP`: one that crashes or hangs is a fault to report and takes nobody with it.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec
import numpy as np

from crykit.bundle import GOLDEN_EXPECTED, GOLDEN_INPUT, Bundle
from crykit.errors import CrykitError, InputError
from crykit.runtime import available_runtimes, open_runtime

TORCH_MAX_ABS = 1e-4
"""Torch made the expected values; another machine's kernels may round differently."""
CHILD_TIMEOUT_S = 180.0
"""The clip takes a fraction of a second; importing torch on a small machine most of a minute."""


class Check(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the report. `ok` is None where the check could not be made."""

    check: str
    ok: bool | None
    runtime: str | None = None
    precision: str | None = None
    step_samples: int | None = None
    max_abs: float | None = None
    tolerance: float | None = None
    embedding_max_abs: float | None = None
    step_ms: float | None = None
    detail: str | None = None


def verify_bundle(bundle: Bundle, timeout_s: float = CHILD_TIMEOUT_S) -> list[Check]:
    """The digests, which `Bundle.open` has compared, then each runtime on the golden clip.

    Args:
        timeout_s: what has not answered by then has failed.
    """
    files = len(bundle.manifest.files)
    report = [Check(check="digests", ok=True, detail=f"{files} files")]
    missing = {runtime: why for runtime, _, why in available_runtimes(bundle)}
    subjects = [(a.runtime, a.precision, a.step_samples) for a in bundle.manifest.artefacts]
    if bundle.has_weights:
        subjects.append(("torch", "fp32", None))
    for subject in subjects:
        why = missing[subject[0]]
        if why is None:
            report.append(check_in_child(bundle, *subject, timeout_s=timeout_s))
        else:
            report.append(_golden(*subject, ok=None, detail=f"skipped: {why}"))
    return report


def check_in_child(
    bundle: Bundle,
    runtime: str,
    precision: str,
    step_samples: int | None = None,
    timeout_s: float = CHILD_TIMEOUT_S,
) -> Check:
    """`check_golden` in a fresh process. How that ends is part of the answer."""
    subject = (runtime, precision, step_samples)
    # -P: a folder named crykit in the working directory is not ours.
    command = [sys.executable, "-P", "-m", "crykit.verification", str(bundle.folder.resolve())]
    command += [runtime, precision, str(step_samples or 0)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return _golden(*subject, ok=False, detail=f"gave no answer within {timeout_s:g} s")
    try:
        return msgspec.json.decode(done.stdout, type=Check)
    except msgspec.DecodeError:
        return _golden(*subject, ok=False, detail=f"its process {_ending(done)}")


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """How a process ended that should have answered, with its last words."""
    how = f"ended with {done.returncode}"
    if done.returncode < 0:
        number = -done.returncode
        known = number in set(signal.Signals)
        how = f"was ended by {signal.Signals(number).name if known else f'signal {number}'}"
    words = " ".join(done.stderr.decode(errors="replace").strip().rpartition("\n")[2].split())
    return f"{how}: {words[:200]}" if words else how


def check_golden(
    bundle: Bundle, runtime: str, precision: str, step_samples: int | None = None
) -> Check:
    """Replay the golden clip and compare the probabilities with torch's, within the tolerance.

    Args:
        step_samples: of the artefact, if not the manifest's own step.
    """
    subject = (runtime, precision, step_samples)
    artefact = bundle.manifest.artefact(*subject)
    tolerance = artefact.tolerance.cry_probability_max_abs if artefact else TORCH_MAX_ABS
    try:
        samples, expected = read_golden(bundle)
        got, step_ms = _replay(bundle, *subject, samples)
    except CrykitError as error:
        return _golden(*subject, ok=False, detail=" ".join(str(error).split()))
    for name, values in got.items():
        if values.shape != expected[name].shape:
            detail = f"{name}: expected the shape {expected[name].shape}, got {values.shape}"
            return _golden(*subject, ok=False, detail=detail)
    max_abs = _max_abs(got["cry_probability"], expected["cry_probability"])
    return Check(
        check="golden",
        runtime=runtime,
        precision=precision,
        step_samples=step_samples,
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
    bundle: Bundle, runtime: str, precision: str, step_samples: int | None, samples: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs over the clip, and the mean time of a step in ms."""
    model = open_runtime(bundle, runtime, precision, step_samples=step_samples)
    step = model.step_samples
    if len(samples) % step:
        raise InputError(f"the golden clip of {len(samples)} samples is not whole steps of {step}")
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


def _golden(
    runtime: str, precision: str, step_samples: int | None, *, ok: bool | None, detail: str
) -> Check:
    return Check(
        check="golden",
        runtime=runtime,
        precision=precision,
        step_samples=step_samples,
        ok=ok,
        detail=detail,
    )


def _main(folder: str, runtime: str, precision: str, step: str) -> None:
    # The answer goes out on what was stdout; a library that prints there now prints on stderr.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    subject = (runtime, precision, int(step) or None)
    try:
        check = check_golden(Bundle.open(folder), *subject)
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        check = _golden(*subject, ok=False, detail=detail)
    with answer:
        answer.write(msgspec.json.encode(check))


if __name__ == "__main__":
    _main(*sys.argv[1:])
