"""Manifests of labelled clips: one CSV row a clip, every split by group.

A clip-level split lets a network recognise the baby, the room or the microphone instead of the
cry, so a manifest in which a group straddles two splits is refused here, for training,
calibration and measurement alike.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from crykit.errors import InputError

REQUIRED_COLUMNS = ("path", "event", "group", "split")
SPLITS = ("train", "val", "test")
SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Clip:
    """One row of a manifest. ``attributes`` holds the columns that this class does not name."""

    path: Path
    event: str
    group: str
    split: str
    source: str
    licence: str
    label: str
    reason: str
    attributes: dict[str, str]

    def number(self, column: str, default: float) -> float:
        """A numeric column, or ``default`` where the manifest lacks it or leaves it empty."""
        text = self.attributes.get(column, "")
        try:
            return float(text) if text else default
        except ValueError:
            raise InputError(
                f"manifest: column {column} of {self.path.name} should be a number, "
                f"is {text!r}; mend the row"
            ) from None


def read_manifest(path: str | Path, *, leaky: bool = False) -> list[Clip]:
    """Read and check a manifest.

    Columns ``path`` (relative to the manifest's folder), ``event``, ``group`` and ``split`` are
    required; ``source``, ``licence``, ``orig_label``, ``reason`` and the measured ones
    (``rms_dbfs``, ``tonal_frac``, ``silent_frac``) are used where present.

    Args:
        path: the CSV file.
        leaky: accept groups that straddle splits, for a leakage diagnostic alone.

    Raises:
        InputError: no such file, a missing column, an unknown split, an empty group, a missing
            audio file, or a group on two sides of a split.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"manifest {path}: cannot be read ({error}); give a CSV file with a header line"
        ) from None
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"manifest {path}: expected columns {', '.join(REQUIRED_COLUMNS)}, "
            f"{', '.join(missing)} missing; add them"
        )
    if not rows:
        raise InputError(f"manifest {path}: has a header and no rows; add clips")
    clips = [_clip(path, number, row) for number, row in enumerate(rows, start=2)]
    if not leaky:
        check_groups(clips)
    return clips


def _clip(manifest: Path, line: int, row: dict[str, str]) -> Clip:
    split, group = row["split"], row["group"]
    if split not in SPLITS:
        raise InputError(
            f"manifest {manifest}, line {line}: split should be one of {', '.join(SPLITS)}, "
            f"is {split!r}"
        )
    if not group:
        raise InputError(
            f"manifest {manifest}, line {line}: the group is empty; name who or what was "
            "recorded, so that no voice is on two sides of a split"
        )
    audio = manifest.parent / row["path"]
    if not audio.is_file():
        raise InputError(
            f"manifest {manifest}, line {line}: no file {row['path']} beside it; restore it or "
            "drop the row"
        )
    named = ("path", "event", "group", "split", "source", "licence", "orig_label", "reason")
    return Clip(
        path=audio,
        event=row["event"],
        group=group,
        split=split,
        source=row.get("source") or "unknown",
        licence=row.get("licence") or "unknown",
        label=row.get("orig_label") or row["event"],
        reason=row.get("reason") or "",
        attributes={key: value for key, value in row.items() if key not in named and value},
    )


def check_groups(clips: Iterable[Clip]) -> None:
    """Refuse a split in which a group straddles.

    Raises:
        InputError: naming the first such group, its splits, and how many there are.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split)
    torn = sorted(group for group, sides in splits.items() if len(sides) > 1)
    if torn:
        raise InputError(
            f"manifest: every group must be in one split, but {torn[0]!r} is in "
            f"{' and '.join(sorted(splits[torn[0]]))} ({len(torn)} such groups); split by group, "
            "or scores will measure memory"
        )


def without_sources(clips: Iterable[Clip], sources: Sequence[str]) -> list[Clip]:
    """Clips that share no group with the given sources, so that nothing of them is heard.

    Data sets overlap: two of them may hold parts of one recording under the same group.
    """
    clips = list(clips)
    heard = {clip.group for clip in clips if clip.source in sources}
    return [clip for clip in clips if clip.group not in heard]


def read_clip(clip: Clip) -> NDArray[np.float32]:
    """The clip's audio, (n,) float32, mono at 16 kHz.

    Raises:
        InputError: the file is no audio, is empty, or holds samples that are not finite.
    """
    try:
        samples, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{clip.path}: cannot be read as audio ({error})") from None
    mono = samples.mean(axis=1)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    if not len(mono):
        raise InputError(f"{clip.path}: holds no samples; drop its row")
    if not np.isfinite(mono).all():
        raise InputError(f"{clip.path}: holds samples that are not numbers; re-export it")
    return np.ascontiguousarray(mono, dtype=np.float32)


def data_summary(clips: Sequence[Clip]) -> list[dict[str, object]]:
    """Source, licences, clips and groups, for a model card."""
    sources: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        sources[clip.source].append(clip)
    return [
        {
            "source": source,
            "licence": " / ".join(sorted({clip.licence for clip in members})),
            "clips": len(members),
            "groups": len({clip.group for clip in members}),
        }
        for source, members in sorted(sources.items())
    ]
