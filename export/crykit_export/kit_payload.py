"""What a phone kit carries of a model: `kit.json`, its graphs, golden sound with its answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import FaultFound
from crykit.events import CryEvent, CryStarted
from crykit.files import write_aside
from crykit.gate import EventGate, GateClosed
from crykit.listener import FrameBlock
from crykit.manifest import Artefact, GraphSpec, Manifest
from crykit.offline import make_listener
from crykit.runtime import Runtime, open_runtime
from crykit.synth import synthetic_cry
from crykit.verification import read_golden

Float32 = NDArray[np.float32]

FORMAT_VERSION = 1
CARD_NAME = "MODEL_CARD.md"
GOLDEN_AUDIO = "golden/golden.wav"
GOLDEN_EXPECTED = "golden/expected.json"
GATE_VECTORS = "golden/gate_vectors.json"

CRY_TRIES = 24
CRY_S, LEAD_S, REST_S, SILENT_S = 8.0, 1.6, 3.36, 0.64
CRY_DBFS, FLOOR_DBFS = -24.0, -60.0
LATE_SAMPLES = (0, 320, 900, 1700)  # mostly neither whole frames nor whole steps
DULL_SHARE = 0.875  # of the rate: of 8 kHz, 7 are left


@dataclass(frozen=True)
class Heard:
    """What the Python listener makes of one sound: frames, and cries with their clock."""

    samples: Float32
    cry_probability: Float32
    level_dbfs: Float32
    events: list[dict[str, float]]


def write_payload(bundle: Bundle, artefact: Artefact, vectors: Path, folder: Path) -> Heard:
    """Write the folder `kit` of a kit, made and proven with this very artefact.

    Args:
        vectors: `gate_vectors.json`, which is copied.
        folder: to make.

    Returns:
        The golden sound and what is expected of it.

    Raises:
        FaultFound: the artefact does not agree with the bundle's golden clip, or its gate finds a
            cry in no golden sound.
        MissingPart: its runtime is not installed.
    """
    runtime = open_runtime(bundle, artefact.runtime, artefact.precision)
    golden = golden_sound(bundle, artefact, runtime)
    (folder / "golden").mkdir(parents=True)
    rate = bundle.manifest.sample_rate_hz
    soundfile.write(folder / GOLDEN_AUDIO, golden.samples, rate, subtype="PCM_16")
    _write_json(folder / GOLDEN_EXPECTED, expected_json(bundle, artefact, golden))
    shutil.copyfile(vectors, folder / GATE_VECTORS)
    for what in ("frontend", "network"):
        shutil.copyfile(
            _source(bundle, artefact, what), folder / _file_name(bundle, artefact, what)
        )
    if CARD_NAME in bundle.manifest.files:
        shutil.copyfile(bundle.path(CARD_NAME), folder / CARD_NAME)
    _write_json(folder / "kit.json", kit_json(bundle, artefact))
    return golden


def kit_json(bundle: Bundle, artefact: Artefact) -> dict[str, Any]:
    """Everything an app must know of its model; times in samples."""
    manifest = bundle.manifest
    copied = (
        *("name", "version", "licence", "description", "labels", "sample_rate_hz", "hop_samples"),
        *("frame_samples", "latency_samples", "n_mels", "embedding_size"),
    )
    return {
        "format_version": FORMAT_VERSION,
        "model_id": bundle.model_id,
        **{name: getattr(manifest, name) for name in copied},
        "step_samples": manifest.step_of(artefact),
        "runtime": artefact.runtime,
        "precision": artefact.precision,
        "frontend": _graph(bundle, artefact, "frontend", manifest.graphs.frontend),
        "network": _graph(bundle, artefact, "network", manifest.graphs.network),
        "gate": msgspec.structs.asdict(manifest.gate),
        "evidence": msgspec.to_builtins(manifest.evidence),
        "golden": {
            "audio": GOLDEN_AUDIO,
            "expected": GOLDEN_EXPECTED,
            "gate_vectors": GATE_VECTORS,
        },
    }


def _graph(bundle: Bundle, artefact: Artefact, what: str, spec: GraphSpec) -> dict[str, Any]:
    data = _source(bundle, artefact, what).read_bytes()
    return {
        "file": _file_name(bundle, artefact, what),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        **msgspec.to_builtins(spec),
    }


def _source(bundle: Bundle, artefact: Artefact, what: str) -> Path:
    return bundle.path(artefact.frontend if what == "frontend" else artefact.network)


def _file_name(bundle: Bundle, artefact: Artefact, what: str) -> str:
    """`frontend.onnx`, `network.pte`: the same names whatever the precision."""
    return what + _source(bundle, artefact, what).suffix


def golden_sound(bundle: Bundle, artefact: Artefact, runtime: Runtime) -> Heard:
    """The bundle's golden clip, checked against torch, if its cries are plain ones.

    Else the first synthetic cry that is: a phone's resampler, the moment at which a microphone
    starts and another processor's rounding must not decide what is heard. The first with any event
    at all is the last resort.
    """
    samples, expected = _bundle_golden(bundle)
    first = hear(bundle, runtime, samples)
    _check(artefact, first.cry_probability, expected)
    rate = bundle.manifest.sample_rate_hz
    others = (hear(bundle, runtime, cry_in_a_room(seed, rate)) for seed in range(CRY_TRIES))
    spare: Heard | None = None
    for heard in itertools.chain([first], others):
        if heard.events and _is_plain(bundle, runtime, heard):
            return heard
        spare = spare or (heard if heard.events else None)
    if spare is not None:
        return spare
    raise FaultFound(
        f"{bundle.manifest.name}: its gate finds a cry neither in its golden clip nor in "
        f"{CRY_TRIES} synthetic ones, so a kit could prove nothing; choose the gate anew"
    )


def _is_plain(bundle: Bundle, runtime: Runtime, heard: Heard) -> bool:
    """Whether a phone's microphone, or a firmer gate, hears the same cries.

    The firmer gate, with a threshold half way to certainty, must find as many. A microphone that
    starts a moment later, or is deaf to the highest tones as many resamplers are, must find them at
    the same time, give or take half a step.
    """
    if _count_firmly(bundle.manifest, heard) != len(heard.events):
        return False
    rate, sound = bundle.manifest.sample_rate_hz, heard.samples
    dull = soxr.resample(soxr.resample(sound, rate, DULL_SHARE * rate), DULL_SHARE * rate, rate)
    for late in LATE_SAMPLES:
        for variant in (sound, dull):
            again = hear(bundle, runtime, variant[late:])
            if not _same_times(again.events, heard.events, late, runtime.step_samples // 2):
                return False
    return True


def _same_times(
    got: list[dict[str, float]], expected: list[dict[str, float]], late: int, within: int
) -> bool:
    return len(got) == len(expected) and all(
        abs(event[edge] + late - wanted[edge]) <= within
        for event, wanted in zip(got, expected, strict=True)
        for edge in ("onset_sample", "offset_sample")
    )


def _count_firmly(manifest: Manifest, heard: Heard) -> int:
    firmer = manifest.gate.override(on_threshold=(1.0 + manifest.gate.on_threshold) / 2.0)
    gate = EventGate(firmer, manifest.frame_samples, manifest.sample_rate_hz)
    whole = len(heard.samples) // manifest.frame_samples
    levels = heard.level_dbfs[:whole].tolist()
    found = gate.feed(heard.cry_probability[:whole].tolist(), levels) + gate.flush()
    return sum(isinstance(change, GateClosed) for change in found)


def _bundle_golden(bundle: Bundle) -> tuple[Float32, Float32]:
    samples, expected = read_golden(bundle)
    return np.asarray(samples, np.float32), np.asarray(expected["cry_probability"], np.float32)


def _check(artefact: Artefact, got: Float32, expected: Float32) -> None:
    tolerance = artefact.tolerance.cry_probability_max_abs
    shapes_agree = got.shape == expected.shape
    max_abs = float(np.max(np.abs(got - expected))) if shapes_agree else float("nan")
    if not max_abs <= tolerance:
        raise FaultFound(
            f"{artefact.runtime} {artefact.precision} does not match the golden clip: expected "
            f"{len(expected)} probabilities within {tolerance:g} of torch's, got {len(got)}, "
            f"{max_abs:.3g} off at most; export the bundle anew"
        )


def cry_in_a_room(seed: int, sample_rate_hz: int) -> Float32:
    """A quiet room with one synthetic cry in it, then digital silence, as PCM16 would hold it."""
    rng = np.random.default_rng(seed)
    n_samples = round((LEAD_S + CRY_S + REST_S + SILENT_S) * sample_rate_hz)
    sound = rng.standard_normal(n_samples) * 10.0 ** (FLOOR_DBFS / 20.0)
    cry = synthetic_cry(CRY_S, seed, level_dbfs=CRY_DBFS)
    start = round(LEAD_S * sample_rate_hz)
    sound[start : start + len(cry)] += cry
    sound[n_samples - round(SILENT_S * sample_rate_hz) :] = 0.0
    return (np.round(np.clip(sound, -1.0, 32767 / 32768) * 32768) / 32768).astype(np.float32)


def hear(bundle: Bundle, runtime: Runtime, samples: Float32) -> Heard:
    """Play a sound through a fresh listener and its gate, then flush."""
    listener = make_listener(bundle, runtime)
    blocks: list[FrameBlock] = []
    listener.on_frames = blocks.append
    events = _events([*listener.feed(samples), *listener.flush()], listener.sample_rate_hz)
    return Heard(
        samples,
        np.concatenate([block.cry_probability for block in blocks]),
        np.concatenate([block.level_dbfs for block in blocks]),
        events,
    )


def _events(found: list[CryStarted | CryEvent], rate: int) -> list[dict[str, float]]:
    """Closed events, with the clock at which each was first known."""
    detected = {e.id: round(e.detected_s * rate) for e in found if isinstance(e, CryStarted)}
    return [
        {
            "onset_sample": round(event.onset_s * rate),
            "offset_sample": round(event.offset_s * rate),
            "detected_sample": detected[event.id],
            "peak_probability": event.peak_probability,
            "mean_probability": event.mean_probability,
            "level_dbfs": event.level_dbfs,
        }
        for event in found
        if isinstance(event, CryEvent)
    ]


def expected_json(bundle: Bundle, artefact: Artefact, heard: Heard) -> dict[str, Any]:
    """What the golden sound must give, frame by frame and event by event."""
    return {
        "sample_rate_hz": bundle.manifest.sample_rate_hz,
        "frame_samples": bundle.manifest.frame_samples,
        "tolerance": {"cry_probability_max_abs": artefact.tolerance.cry_probability_max_abs},
        "cry_probability": np.round(heard.cry_probability.astype(np.float64), 7).tolist(),
        "level_dbfs": np.round(heard.level_dbfs.astype(np.float64), 4).tolist(),
        "events": heard.events,
    }


def _write_json(path: Path, document: dict[str, Any]) -> None:
    with write_aside(path) as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")
