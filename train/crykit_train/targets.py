"""What teachers hear in each training clip: soft targets for the student.

Teachers hear the clips clean, and the student hears them in composed mixtures (noisy-student
training: Q. Xie et al., "Self-training with Noisy Student improves ImageNet classification", CVPR
2020), so a target stays right where a teacher would be lost in the noise.

A teacher's word on a labelled clip comes from a fit that never heard the clip's group, so that it
cannot repeat the label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crykit.dataset import Clip, read_clip
from crykit.errors import InputError, UsageError
from crykit_train import checkpoint
from crykit_train.acoustics import Audio, Treatment, frame_rms, treat
from crykit_train.recipe import DistilRecipe, TeacherRecipe

FRAME_SAMPLES = 640
TELEPHONE_HZ = 3800.0
UNVERIFIED = "unverified"
# Probes: folds by group, and strengths tried on the validation split.
N_FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
# A frame of a clip is learned from where it sounds: within 25 dB of the loud level.
SOUNDING_DB = 25.0
# The share of a clip's loudest-voted frames that makes its score.
TOP_FRACTION = 0.5

Features = Callable[[Audio], NDArray[np.float32]]
Progress = Callable[[int, int, float], None]
Track = NDArray[np.float32]


@dataclass(frozen=True)
class SoftTargets:
    """Cry probability of each 40 ms frame of each clip, and what was measured of the teachers."""

    tracks: dict[Path, Track]
    report: list[dict[str, Any]]
    # Mean and deviation of a YAMNet teacher's embedding over the clips, (1024,) each.
    embedding: tuple[Track, Track] | None = None

    def score(self, clip: Clip) -> float:
        """Mean of the upper half of a clip's frames."""
        track = np.sort(self.tracks[clip.path])
        return float(track[-max(1, round(TOP_FRACTION * len(track))) :].mean())


def soft_targets(
    clips: Sequence[Clip], recipe: DistilRecipe, progress: Progress | None = None
) -> SoftTargets:
    """Ask every teacher about every train clip, and average.

    Args:
        clips: train and val clips, labelled or unverified; tracks are made of the train clips, and
            val clips choose each probe's strength.

    Raises:
        UsageError: a teacher without a path.
        InputError: a teacher's file cannot be used, or there is nothing to fit a probe on.
    """
    train = [c for c in clips if c.split == "train"]
    val = [c for c in clips if c.split == "val" and c.event != UNVERIFIED]
    sums: dict[Path, Track] = {}
    report: list[dict[str, Any]] = []
    embedding: tuple[Track, Track] | None = None
    for number, teacher in enumerate(recipe.teachers):
        if not teacher.path:
            raise UsageError(
                f"distil.teachers: teacher {number} ({teacher.kind}) has no path; "
                f"give --teacher {teacher.kind}=PATH"
            )
        tracks, facts = _ask(teacher, train, val, progress)
        statistics = facts.pop("statistics", None)
        if teacher.kind == "yamnet":
            embedding = statistics
        report.append({"kind": teacher.kind, "weight": teacher.weight, **facts})
        for path, track in tracks.items():
            share = track * np.float32(teacher.weight)
            sums[path] = sums[path] + share if path in sums else share
    whole = np.float32(sum(t.weight for t in recipe.teachers))
    return SoftTargets({path: t / whole for path, t in sums.items()}, report, embedding)


def sharpened(track: Track, sharpness: float) -> Track:
    """Probabilities with their log-odds multiplied (as D. Berthelot et al., "MixMatch", 2019)."""
    ours, theirs = track**sharpness, (1 - track) ** sharpness
    return (ours / (ours + theirs)).astype(np.float32)


def save_targets(path: Path, targets: SoftTargets, folder: Path) -> None:
    """Write targets, each clip by its path in the manifest's folder, or whole if outside it."""
    tensors = {
        f"track.{clip.relative_to(folder) if clip.is_relative_to(folder) else clip}": (
            torch.from_numpy(track)
        )
        for clip, track in targets.tracks.items()
    }
    if targets.embedding is not None:
        tensors["mean"], tensors["std"] = map(torch.from_numpy, targets.embedding)
    checkpoint.save(path, tensors, {"report": targets.report})


def load_targets(path: Path, folder: Path) -> SoftTargets:
    """Read what `save_targets` wrote.

    Raises:
        InputError: the file is missing or cut.
    """
    tensors, state = checkpoint.load(path)
    tracks = {folder / k: t.numpy() for k, t in checkpoint.under("track", tensors).items()}
    both = (tensors["mean"].numpy(), tensors["std"].numpy()) if "mean" in tensors else None
    return SoftTargets(tracks, state["report"], both)


def _ask(
    teacher: TeacherRecipe, train: list[Clip], val: list[Clip], progress: Progress | None
) -> tuple[dict[Path, Track], dict[str, Any]]:
    if teacher.kind == "detector":
        return _detector_tracks(Path(teacher.path), train, progress)
    if teacher.kind == "yamnet":
        from crykit_train.peers.yamnet import HOP_SAMPLES, WINDOW_SAMPLES, Yamnet

        features, hop, window = Yamnet(teacher.path).embed, HOP_SAMPLES, WINDOW_SAMPLES
    else:
        features, hop, window = _encoder_features(Path(teacher.path))
    tracks, facts = _probe_tracks(features, hop, window, train, val, progress)
    if teacher.kind == "encoder" and _encoder_leaky(Path(teacher.path)):
        facts["leaky"] = True
    return tracks, facts


def _encoder_leaky(run: Path) -> bool:
    from crykit.nn.pretrained import load_pretrained

    return bool(load_pretrained(run).record.get("leaky"))


def _encoder_features(run: Path) -> tuple[Features, int, int]:
    """A pre-trained encoder's embedding of each second, every half second."""
    from crykit.nn.pretrained import load_pretrained

    pretrained = load_pretrained(run)
    window, hop = 16_000, 8_000

    def features(samples: Audio) -> NDArray[np.float32]:
        starts = range(0, max(1, len(samples) - window + hop), hop)
        padded = np.zeros(starts[-1] + window, np.float32)
        padded[: min(len(samples), len(padded))] = samples[: len(padded)]
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack([padded[s : s + window] for s in starts]))
            return pretrained.embed(batch).numpy()

    return features, hop, window


def _detector_tracks(
    path: Path, train: list[Clip], progress: Progress | None
) -> tuple[dict[Path, Track], dict[str, Any]]:
    """A detector's own frames, its prior moved back to one cry in two."""
    from crykit.nn.frontend import LogMelFrontEnd
    from crykit_train.evaluate import frame_probabilities
    from crykit_train.models import is_leaky, load_detector

    model, facts = load_detector(path)
    prior = float(facts["training"]["recipe"]["train"]["cry_prior"])
    shift = -np.log(prior / (1 - prior))
    front_end = LogMelFrontEnd("fft")
    tracks: dict[Path, Track] = {}
    for number, clip in enumerate(train):
        (frames,) = frame_probabilities(model, front_end, [read_clip(clip)])
        odds = np.log(np.clip(frames, 1e-7, 1 - 1e-7)) - np.log1p(-np.clip(frames, 1e-7, 1 - 1e-7))
        tracks[clip.path] = (1 / (1 + np.exp(-(odds + shift)))).astype(np.float32)
        _tell(progress, number, len(train))
    told = {"name": facts["name"], "version": facts["version"]}
    return tracks, told | ({"leaky": True} if is_leaky(facts) else {})


def _tell(progress: Progress | None, number: int, of: int) -> None:
    if progress:
        progress(number + 1, of, float("nan"))


# --- probes on embeddings --------------------------------------------------------------------


@dataclass(frozen=True)
class _Embedded:
    """Windows of all clips: features (n, size), clip of each (n,), whether it sounds (n,)."""

    x: NDArray[np.float32]
    owner: NDArray[np.int64]
    sounds: NDArray[np.bool_]


def _embed(
    features: Features,
    hop: int,
    window: int,
    clips: Sequence[Clip],
    progress: Progress | None,
    *,
    low_pass_hz: float | None = None,
) -> _Embedded:
    rows, owner, sounds = [], [], []
    for number, clip in enumerate(clips):
        samples = read_clip(clip)
        if low_pass_hz is not None:
            samples = treat(samples, Treatment(low_pass_hz=low_pass_hz))
        found = features(samples)
        rows.append(found.astype(np.float32))
        owner += [number] * len(found)
        sounds.append(_sounding(samples, len(found), hop, window))
        _tell(progress, number, len(clips))
    return _Embedded(np.concatenate(rows), np.array(owner), np.concatenate(sounds))


def _sounding(samples: Audio, n: int, hop: int, window: int) -> NDArray[np.bool_]:
    rms = frame_rms(samples, 320)
    if not len(rms):
        return np.ones(n, bool)
    loud = rms > np.percentile(rms, 95) * 10 ** (-SOUNDING_DB / 20)
    out = np.array(
        [loud[i * hop // 320 : (i * hop + window) // 320].mean() > 0.25 for i in range(n)]
    )
    return out if out.any() else np.ones(n, bool)


def _probe_tracks(
    features: Features,
    hop: int,
    window: int,
    train: list[Clip],
    val: list[Clip],
    progress: Progress | None,
) -> tuple[dict[Path, Track], dict[str, Any]]:
    """Logistic regression on windows, out of fold where a clip has a label."""
    from sklearn.metrics import roc_auc_score

    labelled = np.array([c.event != UNVERIFIED for c in train])
    is_cry = np.array([c.event == "cry" for c in train])
    if not (is_cry.any() and (labelled & ~is_cry).any()):
        raise InputError("distillation: a teacher's probe needs labelled cries and other sounds")
    plain = _embed(features, hop, window, train, progress)
    # Telephone copies, of cries and others alike, so that bandwidth tells nothing.
    narrow = _embed(features, hop, window, train, progress, low_pass_hz=TELEPHONE_HZ)
    heard = _embed(features, hop, window, val, progress)
    val_cry = np.array([c.event == "cry" for c in val])

    def fit(picked: NDArray[np.bool_], strength: float):
        rows = [(e, picked[e.owner] & (e.sounds | ~is_cry[e.owner])) for e in (plain, narrow)]
        x = np.concatenate([e.x[keep] for e, keep in rows])
        y = np.concatenate([is_cry[e.owner[keep]] for e, keep in rows])
        return _logistic(x, y, strength)

    scores: dict[float, float] = {}
    for strength in STRENGTHS:
        model = fit(labelled, strength)
        found = _clip_scores(model.predict_proba(heard.x)[:, 1], heard.owner, len(val))
        scores[strength] = float(roc_auc_score(val_cry, found)) if val_cry.any() else 0.0
    best = max(STRENGTHS, key=lambda s: round(scores[s], 4))
    probabilities = fit(labelled, best).predict_proba(plain.x)[:, 1]
    folds = _folds(train)
    for fold in range(N_FOLDS):
        inside = labelled & (folds == fold)
        if not is_cry[labelled & ~inside].any() or not inside.any():
            continue
        rows = inside[plain.owner]
        model = fit(labelled & ~inside, best)
        probabilities[rows] = model.predict_proba(plain.x[rows])[:, 1]
    tracks = {
        clip.path: _spread(probabilities[plain.owner == i], hop, window, _n_frames(clip))
        for i, clip in enumerate(train)
    }
    statistics = plain.x.mean(axis=0), plain.x.std(axis=0) + 1e-3
    return tracks, {
        "strength": best,
        "val_auc": round(scores[best], 4),
        "statistics": statistics,
    }


def _logistic(x: NDArray[np.float32], y: NDArray[np.bool_], strength: float):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    ).fit(x, y)


def _clip_scores(
    probabilities: NDArray[np.float64], owner: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    out = np.zeros(n)
    for i in range(n):
        own = np.sort(probabilities[owner == i])
        out[i] = own[-max(1, round(TOP_FRACTION * len(own))) :].mean()
    return out


def _folds(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """A fold for each clip, whole groups together, the largest dealt out first."""
    members: dict[str, int] = {}
    for clip in clips:
        members[clip.group] = members.get(clip.group, 0) + 1
    ranked = sorted(members, key=lambda g: (-members[g], g))
    fold = {group: k % N_FOLDS for k, group in enumerate(ranked)}
    return np.array([fold[c.group] for c in clips])


def _n_frames(clip: Clip) -> int:
    return max(1, -(-len(read_clip(clip)) // FRAME_SAMPLES))


def _spread(windows: NDArray[np.float64], hop: int, window: int, n_frames: int) -> Track:
    """Window probabilities on the 40 ms grid, by linear interpolation between their middles."""
    middles = (np.arange(len(windows)) * hop + window / 2) / FRAME_SAMPLES
    return np.interp(np.arange(n_frames) + 0.5, middles, windows).astype(np.float32)
