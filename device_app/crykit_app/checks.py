"""What `crykit doctor` looks at. A check never raises: trouble is a finding, with its fix."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crykit.errors import CrykitError

if TYPE_CHECKING:
    from crykit.bundle import Bundle
    from crykit.choice import Way
    from crykit_app.capture import InputDevice, Microphone
    from crykit_app.ring import Samples

MODEL_RATE_HZ = 16_000
RATE_TOLERANCE = 0.02
"""Two in a hundred: a sound card's clock is a thousand times better, its buffering is not."""

SILENT_DBFS = -95.0
FAINT_DBFS = -75.0
CLIPPED_SHARE = 0.001
MAX_REAL_TIME_FACTOR = 0.5
_FIRST_SOUND_S = 3.0
_WARM_UP_S = 0.5


@dataclass(frozen=True)
class Finding:
    """One line of the report; `ok` is None where the check could not be made."""

    check: str
    ok: bool | None
    detail: str
    fix: str | None = None


def check_model(
    model: str | None, runtime: str | None = None, precision: str | None = None
) -> list[Finding]:
    """Digests, golden clip, and the time that a step takes, on what `crykit listen` would run."""
    from crykit.bundle import open_model_bundle
    from crykit.choice import way_to_run

    try:
        bundle = open_model_bundle(model)
    except CrykitError as error:
        return [
            Finding("model", False, str(error), "reinstall crykit, or name another with --model"),
            Finding("golden clip", None, "needs a model"),
            Finding("speed", None, "needs a model"),
        ]
    files = len(bundle.manifest.files)
    found = Finding("model", True, f"{bundle.model_id}, {files} files as the manifest says")
    way = way_to_run(bundle, runtime, precision)
    return [found, *_golden_and_speed(bundle, way)]


def _golden_and_speed(bundle: Bundle, way: Way) -> list[Finding]:
    from crykit.verification import check_golden

    label = f"{way.runtime} {way.precision}"
    golden = check_golden(bundle, way.runtime, way.precision, way.step_samples)
    if not golden.ok or golden.step_ms is None:
        detail = golden.detail or f"differs by {golden.max_abs}, more than {golden.tolerance}"
        fix = "choose another --runtime or --precision (see: crykit verify)"
        return [
            Finding("golden clip", False, f"{label}: {detail}", fix),
            Finding("speed", None, "needs a model that runs"),
        ]
    manifest = bundle.manifest
    step_ms = 1000 * (way.step_samples or manifest.step_samples) / manifest.sample_rate_hz
    factor = golden.step_ms / step_ms
    detail = (
        f"{golden.step_ms:.1f} ms for a step of {step_ms:.0f} ms, real-time factor {factor:.3f}"
    )
    slow = "stop other programs, or try --precision int8 or another --runtime"
    fast_enough = factor <= MAX_REAL_TIME_FACTOR
    return [
        Finding("golden clip", True, f"{label} agrees within {golden.tolerance}"),
        Finding("speed", fast_enough, detail, None if fast_enough else slow),
    ]


def check_store(data_dir: str | None) -> list[Finding]:
    """Whether the event log can be opened and written."""
    from crykit_app.store import EventStore, default_path

    path = default_path(data_dir)
    try:
        store = EventStore(path)
        store.probe()
        store.close()
    except CrykitError as error:
        return [Finding("event log", False, str(error), "choose a folder with --data-dir")]
    if store.set_aside is not None:
        detail = f"was damaged: set aside as {store.set_aside}, and a new one begun"
        fix = f"check the disk; nothing more is to be done for {path}"
        return [Finding("event log", False, detail, fix)]
    return [Finding("event log", True, str(path))]


def check_device(wanted: str | None, seconds: float) -> list[Finding]:
    """The microphone: there, open, at its rate, not mute and not too loud."""
    from crykit_app.capture import Microphone, find_device

    try:
        device = find_device(wanted)
        microphone = Microphone(device, ring_seconds=seconds + 10)
        microphone.open()
    except CrykitError as error:
        message, _, fix = str(error).partition("; ")
        return [
            Finding("microphone", False, message, fix or None),
            *(Finding(name, None, "needs a microphone") for name in ("rate", "level", "losses")),
        ]
    try:
        samples, lost, took_s = _record(microphone, seconds)
    finally:
        microphone.close()
    detail = f"{device.index} {device.name!r} ({device.host_api})"
    return [
        Finding("microphone", True, detail),
        _rate(device, len(samples) + lost, took_s),
        _level(samples),
        _losses(lost, device.sample_rate_hz),
    ]


def _record(microphone: Microphone, seconds: float) -> tuple[Samples, int, float]:
    """Samples (n,), how many were lost, and how long that took by this machine's clock."""
    pause = threading.Event()
    give_up = time.monotonic() + _FIRST_SOUND_S
    while microphone.ring.waiting_samples == 0 and time.monotonic() < give_up:
        pause.wait(0.05)
    pause.wait(_WARM_UP_S)
    microphone.ring.read(microphone.ring.waiting_samples)
    began = time.monotonic()
    pause.wait(seconds)
    lost, pieces = 0, [np.zeros(0, np.float32)]
    waiting = microphone.ring.waiting_samples
    took_s = time.monotonic() - began
    while waiting > 0:
        block = microphone.ring.read(waiting)
        if len(block.samples) == 0:
            break
        waiting -= len(block.samples)
        lost += block.lost_before_samples
        pieces.append(block.samples.mean(axis=1, dtype=np.float32))
    return np.concatenate(pieces), lost, took_s


def _rate(device: InputDevice, samples: int, took_s: float) -> Finding:
    measured_hz = samples / took_s
    # A block may fall on either side of the stopwatch.
    slack = RATE_TOLERANCE + 0.15 / took_s
    detail = f"{device.sample_rate_hz} Hz, measured {measured_hz:.0f} Hz over {took_s:.1f} s"
    if samples == 0:
        return Finding(
            "rate", False, "no sound arrives", "unmute the microphone, or choose another --device"
        )
    if abs(measured_hz / device.sample_rate_hz - 1) > slack:
        fix = "choose the device called 'default' or 'pulse' (see: crykit devices)"
        return Finding("rate", False, detail, fix)
    if device.sample_rate_hz < MODEL_RATE_HZ:
        fix = "choose a microphone of 16 kHz or more; Bluetooth headsets often have 8 kHz"
        return Finding("rate", False, f"{detail}: highs of a cry are missing", fix)
    return Finding("rate", True, detail)


def _level(samples: Samples) -> Finding:
    if len(samples) == 0:
        return Finding("level", None, "no sound arrives")
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    level_dbfs = 20 * np.log10(max(rms, 1e-6))
    clipped = float(np.mean(np.abs(samples) >= 0.999))
    detail = f"{level_dbfs:.0f} dBFS"
    if level_dbfs < SILENT_DBFS:
        fix = "unmute it, and allow this terminal the microphone in the system's privacy settings"
        return Finding("level", False, "digital silence", fix)
    if level_dbfs < FAINT_DBFS:
        return Finding("level", False, f"{detail}: very faint", "turn the input gain up")
    if clipped > CLIPPED_SHARE:
        fix = "turn the input gain down"
        return Finding("level", False, f"{detail}: {100 * clipped:.1f}% at full scale", fix)
    return Finding("level", True, detail)


def _losses(lost: int, rate_hz: int) -> Finding:
    if lost == 0:
        return Finding("losses", True, "no sample lost")
    fix = "stop other programs, or choose the device called 'default' or 'pulse'"
    return Finding("losses", False, f"{lost / rate_hz:.3f} s lost", fix)
