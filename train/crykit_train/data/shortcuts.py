"""Shortcuts: what tells a cry from the rest without hearing it.

Each is a single number of a clip that has nothing to do with crying: how far up its spectrum
reaches, its level, its length, digital silence, the file's format. An AUC far from 0.5 says that
a network can score well on this manifest and know nothing. The converse does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, Clip
from crykit.errors import InputError
from crykit.scoring import group_bootstrap_auc

STRONG_AUC, WEAK_AUC = 0.8, 0.65
FRAME_SAMPLES = 1024
FOLDS = 5
NUMBERS: dict[str, str] = {
    "bandwidth_hz": "bandwidth: frequency under which 99.9 % of the energy lies",
    "above_4khz_db": "bandwidth: energy over 4 kHz against all, dB",
    "level_dbfs": "level: RMS",
    "peak_dbfs": "level: peak",
    "zero_share": "padding: share of samples in runs of 10 ms or more of digital zero",
    "duration_s": "duration",
    "clipped_share": "clipping: share of samples at the clip's own peak",
    "file_rate": "codec: kbit for each second of audio",
}
OF_THE_FILE = ("duration_s", "file_rate")  # what a network that hears windows does not see


@dataclass(frozen=True)
class Traits:
    """What `traits` reads off one clip; the names are those of `NUMBERS`."""

    bandwidth_hz: float
    above_4khz_db: float
    level_dbfs: float
    peak_dbfs: float
    zero_share: float
    duration_s: float
    clipped_share: float
    file_rate: float
    codec: str


def traits(samples: NDArray[np.float32], path: Path) -> Traits:
    """The traits of a clip, (n,) at 16 kHz, and of the file that it was read from."""
    info = soundfile.info(str(path))
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    peak = float(np.abs(samples).max())
    energy = _spectrum(samples)
    hz = np.linspace(0, SAMPLE_RATE_HZ / 2, len(energy))
    whole = float(energy.sum()) + 1e-20
    reach = int(np.searchsorted(np.cumsum(energy), 0.999 * energy.sum()))
    return Traits(
        bandwidth_hz=float(hz[min(reach, len(hz) - 1)]),
        above_4khz_db=10 * float(np.log10(float(energy[hz > 4000].sum()) / whole + 1e-12)),
        level_dbfs=20 * float(np.log10(max(rms, 1e-6))),
        peak_dbfs=20 * float(np.log10(max(peak, 1e-6))),
        zero_share=zero_share(samples),
        duration_s=len(samples) / SAMPLE_RATE_HZ,
        clipped_share=float((np.abs(samples) >= 0.9995 * peak).mean()),
        file_rate=path.stat().st_size * 8e-3 / (info.frames / info.samplerate),
        codec=f"{info.format}/{info.subtype} {info.samplerate} Hz {info.channels} ch",
    )


def zero_share(samples: NDArray[np.float32], run: int = SAMPLE_RATE_HZ // 100) -> float:
    """Share of samples in runs of digital zero (under half a 16-bit step) of 10 ms or longer."""
    zero = np.abs(samples) < 0.5 / 32768
    edges = np.flatnonzero(np.diff(zero.astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= run].sum() / len(samples))


def _spectrum(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy at 513 frequencies, summed over frames of 64 ms."""
    if len(samples) < FRAME_SAMPLES:
        samples = np.pad(samples, (0, FRAME_SAMPLES - len(samples)))
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return (np.abs(np.fft.rfft(frames * np.hanning(FRAME_SAMPLES), axis=1)) ** 2).sum(axis=0)


def shortcut_table(
    found: Sequence[Traits], clips: Sequence[Clip], *, bootstrap: int = 500, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a trait: AUC of cry against rest, folded over 0.5, interval over groups, verdict.

    Unverified clips count as neither. A codec's score is the share of cries among clips of other
    groups with it; "together" is gradient-boosted trees, on all numbers and on those that can be
    heard. All three are cross-fitted by group, so none is scored on what it was fitted to.

    Raises:
        InputError: no cry, or nothing else.
    """
    kept = [i for i, clip in enumerate(clips) if clip.event != "unverified"]
    labels = np.array([clips[i].event == "cry" for i in kept])
    groups = [clips[i].group for i in kept]
    if labels.all() or not labels.any():
        raise InputError("audit: shortcuts need cries and other sounds; the manifest lacks one")
    columns = {name: np.array([getattr(found[i], name) for i in kept], float) for name in NUMBERS}
    codecs = [found[i].codec for i in kept]
    fold = _group_folds(groups, labels, seed)
    rows = [
        _row(name, NUMBERS[name], labels, column, groups, bootstrap, fold_over=True)
        for name, column in columns.items()
    ]
    scored = _cross_fitted_codec(codecs, labels, fold)
    rows.append(_row("codec", "codec: format, rate, channels", labels, scored, groups, bootstrap))
    seen = [name for name in columns if name not in OF_THE_FILE]
    for name, meaning, chosen in (
        ("audible_together", "all together but duration and codec", seen),
        ("all_together", "all of these numbers together", list(columns)),
    ):
        table = np.stack([columns[column] for column in chosen], axis=1)
        together = _cross_fitted_trees(table, labels, fold)
        rows.append(_row(name, meaning, labels, together, groups, bootstrap))
    return rows


def verdict_of(low: float) -> str:
    """``strong``, ``weak`` or ``none``, by the interval's lower end."""
    return "strong" if low >= STRONG_AUC else "weak" if low >= WEAK_AUC else "none"


def _row(
    name: str,
    meaning: str,
    labels: NDArray[np.bool_],
    values: NDArray[np.float64],
    groups: Sequence[str],
    bootstrap: int,
    *,
    fold_over: bool = False,
) -> dict[str, Any]:
    auc, low, high, n_groups = group_bootstrap_auc(labels, values, groups, n=bootstrap)
    direction = "higher in cries"
    if fold_over and auc < 0.5:
        auc, low, high, direction = 1 - auc, 1 - high, 1 - low, "lower in cries"
    return {
        "name": name,
        "meaning": meaning,
        "auc": round(auc, 4),
        "interval": [round(low, 4), round(high, 4)],
        "groups": n_groups,
        "direction": direction,
        "median_cry": round(float(np.median(values[labels])), 3),
        "median_rest": round(float(np.median(values[~labels])), 3),
        "verdict": verdict_of(low),
    }


def _group_folds(groups: Sequence[str], labels: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    from sklearn.model_selection import StratifiedGroupKFold

    n = min(FOLDS, len({g for g, y in zip(groups, labels, strict=True) if y}))
    fold = np.zeros(len(groups), np.intp)
    if n < 2:
        return fold  # one group of cries: nothing can be cross-fitted
    split = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    for k, (_, held) in enumerate(split.split(np.zeros(len(groups)), labels, groups)):
        fold[held] = k
    return fold


def _cross_fitted_codec(
    codecs: Sequence[str], labels: NDArray[np.bool_], fold: NDArray[np.intp]
) -> NDArray[np.float64]:
    names = np.unique(codecs, return_inverse=True)[1]
    score = np.zeros(len(labels))
    for k in np.unique(fold):
        held = fold == k
        seen = ~held if (~held).any() else held
        prior = labels[seen].mean()
        cries = np.bincount(names[seen], labels[seen], minlength=names.max() + 1)
        counts = np.bincount(names[seen], minlength=names.max() + 1)
        score[held] = ((cries + prior) / (counts + 1))[names[held]]
    return score


def _cross_fitted_trees(
    columns: NDArray[np.float64], labels: NDArray[np.bool_], fold: NDArray[np.intp]
) -> NDArray[np.float64]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    score = np.zeros(len(labels))
    for k in np.unique(fold):
        held = fold == k
        seen = ~held
        if not seen.any() or labels[seen].all() or not labels[seen].any():
            continue
        model = HistGradientBoostingClassifier(max_iter=60, random_state=0)
        model.fit(columns[seen], labels[seen])
        score[held] = model.predict_proba(columns[held])[:, 1]
    return score
