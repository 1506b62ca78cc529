"""ComParE 2016: 6373 hand-made acoustic features of a recording, through openSMILE.

The feature set of the Interspeech 2016 computational paralinguistics challenge (Schuller et al.,
2016): statistics over a recording of its loudness, spectrum, MFCC, pitch, jitter, shimmer and their
slopes. Baseline of Gorin et al. (ICASSP 2023), 3.2, and target of the hybrid branch of Elbanna et
al. (HEAR 2022), 2.2. openSMILE is free for research and teaching alone: an extra of its own.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, Clip, read_clip
from crykit.errors import InputError, MissingPart
from crykit.files import write_aside

Float32 = NDArray[np.float32]
Update = Callable[[int, int], None]

FEATURES = 6373
MIN_S = 0.1
"""openSMILE's pitch frame is 60 ms, and its slopes need a neighbour: shorter audio is repeated."""


def compare_features(samples: Float32, rate_hz: int = SAMPLE_RATE_HZ) -> Float32:
    """The functionals of a recording.

    Args:
        samples: (n,) mono, full scale at 1; repeated up to 0.1 s where shorter.

    Returns:
        (6373,), finite: a statistic that the recording leaves undefined is 0.

    Raises:
        InputError: no samples, not one channel, or samples that are no numbers.
        MissingPart: openSMILE is not installed.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise InputError(
            f"ComParE features need one channel of finite samples, got shape {samples.shape}; "
            "mix it down and mend it"
        )
    if len(samples) < MIN_S * rate_hz:
        samples = np.resize(samples, int(np.ceil(MIN_S * rate_hz)))
    values = _smile().process_signal(samples, rate_hz).to_numpy(np.float32)[0]
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def compare_of(
    clips: Sequence[Clip], cache_folder: Path | None = None, update: Update | None = None
) -> Float32:
    """Features of every clip, (clips, 6373).

    Args:
        cache_folder: where one file a clip is kept, named by the hash of its samples; several
            processes may share it. None computes anew.
        update: called with (clips done, clips).
    """
    rows = np.zeros((len(clips), FEATURES), np.float32)
    for i, clip in enumerate(clips):
        rows[i] = _remembered(read_clip(clip), cache_folder)
        if update:
            update(i + 1, len(clips))
    return rows


def _remembered(samples: Float32, cache_folder: Path | None) -> Float32:
    if cache_folder is None:
        return compare_features(samples)
    path = cache_folder / f"{hashlib.sha256(samples.tobytes()).hexdigest()}.npy"
    try:
        values = np.load(path, allow_pickle=False)
        if values.shape == (FEATURES,) and np.isfinite(values).all():
            return values
    except (OSError, ValueError, EOFError):
        pass  # not there, or cut short by a kill: computed and written again
    values = compare_features(samples)
    cache_folder.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as file:
        np.save(file, values, allow_pickle=False)
    return values


@cache
def _smile() -> Any:
    try:
        import opensmile
    except ImportError:
        raise MissingPart(
            "ComParE 2016 features need openSMILE (research licence), which is not installed; "
            "run: pip install 'crykit[compare]'"
        ) from None
    # It warns of segments too short for a statistic; those become 0 here.
    warnings.filterwarnings("ignore", module="opensmile")
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.ComParE_2016,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
