"""Does a bundle do here what it did where it was made? Golden clips on every runtime.

Each runtime replays the clip in a process of its own (`python -m crykit.verification FOLDER
SUBJECT`): one that crashes or hangs is a fault to report and takes nobody with it.
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

from crykit.bundle import GOLDEN_EXPECTED, GOLDEN_INPUT, Bundle, EncoderBundle, open_any
from crykit.errors import CrykitError, InputError
from crykit.manifest import EncoderManifest
from crykit.runtime import missing_engine, open_runtime

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
    form: str | None = None
    max_abs: float | None = None
    tolerance: float | None = None
    embedding_max_abs: float | None = None
    step_ms: float | None = None
    detail: str | None = None


class Subject(msgspec.Struct, frozen=True):
    """One artefact of a bundle.

    Args:
        step_samples: what it hears at a time, if not the manifest's own step.
        form: "clip" for one that hears whole clips, None for one that steps.
    """

    runtime: str
    precision: str
    step_samples: int | None = None
    form: str | None = None

    def check(self, *, ok: bool | None, detail: str) -> Check:
        """A report without figures."""
        return Check(check="golden", ok=ok, detail=detail, **msgspec.structs.asdict(self))


def verify_bundle(
    bundle: Bundle | EncoderBundle, timeout_s: float = CHILD_TIMEOUT_S
) -> list[Check]:
    """The digests, which opening has compared, then each runtime on the golden clip.

    Args:
        timeout_s: what has not answered by then has failed.
    """
    files = len(bundle.manifest.files)
    report = [Check(check="digests", ok=True, detail=f"{files} files")]
    for subject in _subjects(bundle):
        why = missing_engine(subject.runtime)
        if why is None:
            report.append(check_in_child(bundle, subject, timeout_s))
        else:
            report.append(subject.check(ok=None, detail=f"skipped: {why}"))
    return report


def _subjects(bundle: Bundle | EncoderBundle) -> list[Subject]:
    clips = [Subject(a.runtime, a.precision, form="clip") for a in bundle.manifest.clips]
    if isinstance(bundle, EncoderBundle):
        return clips
    steps = [Subject(a.runtime, a.precision, a.step_samples) for a in bundle.manifest.artefacts]
    return [*steps, *clips, *([Subject("torch", "fp32")] if bundle.has_weights else [])]


def check_in_child(
    bundle: Bundle | EncoderBundle, subject: Subject, timeout_s: float = CHILD_TIMEOUT_S
) -> Check:
    """The check of one subject in a fresh process. How that ends is part of the answer."""
    # -P: a folder named crykit in the working directory is not ours.
    command = [sys.executable, "-P", "-m", "crykit.verification", str(bundle.folder.resolve())]
    try:
        done = subprocess.run(
            [*command, msgspec.json.encode(subject).decode()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return subject.check(ok=False, detail=f"gave no answer within {timeout_s:g} s")
    try:
        return msgspec.json.decode(done.stdout, type=Check)
    except msgspec.DecodeError:
        return subject.check(ok=False, detail=f"its process {_ending(done)}")


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
    subject = Subject(runtime, precision, step_samples)
    artefact = bundle.manifest.artefact(runtime, precision, step_samples)
    tolerance = artefact.tolerance.cry_probability_max_abs if artefact else TORCH_MAX_ABS
    try:
        samples, expected = read_golden(bundle)
        got, step_ms = _replay(bundle, subject, samples)
    except CrykitError as error:
        return subject.check(ok=False, detail=" ".join(str(error).split()))
    for name, values in got.items():
        if values.shape != expected[name].shape:
            detail = f"{name}: expected the shape {expected[name].shape}, got {values.shape}"
            return subject.check(ok=False, detail=detail)
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


def read_golden(
    bundle: Bundle | EncoderBundle,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
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
    unit = 1 if isinstance(manifest, EncoderManifest) else manifest.step_samples
    fits = rate_hz == manifest.sample_rate_hz and samples.ndim == 1 and len(samples)
    if not fits or len(samples) % unit:
        raise InputError(
            f"{sound}: expected mono samples at {manifest.sample_rate_hz} Hz, a multiple of "
            f"{unit}, got {samples.shape} at {rate_hz} Hz"
        )
    if isinstance(manifest, EncoderManifest):
        return samples, expected
    if not {"cry_probability", "embedding"} <= set(expected):
        raise InputError(f"{answers}: expected cry_probability and embedding")
    return samples, expected


def _replay(
    bundle: Bundle, subject: Subject, samples: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs over the clip, and the mean time of a step in ms."""
    model = open_runtime(
        bundle, subject.runtime, subject.precision, step_samples=subject.step_samples
    )
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


def _check(folder: str, subject: Subject) -> Check:
    bundle = open_any(folder)
    if subject.form == "clip":
        from crykit.clip_verification import check_clip

        return check_clip(bundle, subject)
    assert isinstance(bundle, Bundle)
    return check_golden(bundle, subject.runtime, subject.precision, subject.step_samples)


def _main(folder: str, subject_json: str) -> None:
    # The answer goes out on what was stdout; a library that prints there now prints on stderr.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    subject = msgspec.json.decode(subject_json, type=Subject)
    try:
        check = _check(folder, subject)
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        check = subject.check(ok=False, detail=detail)
    with answer:
        answer.write(msgspec.json.encode(check))


if __name__ == "__main__":
    _main(*sys.argv[1:])
