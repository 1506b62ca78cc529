"""`crykit data import`: from a published data set to a manifest.

Found clips are measured, copies of the same bytes are dropped, splits are drawn by group, and
``manifest.csv`` is written with paths relative to its own folder.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from crykit.dataset import SPLITS
from crykit.errors import InputError, MissingPart, UsageError
from crykit.files import write_aside
from crykit_train.data.measure import measure
from crykit_train.data.sources import Source
from crykit_train.data.sources.base import Findings, Found, ImportOptions
from crykit_train.data.splits import assign_splits, keep_published

MANIFEST = "manifest.csv"
COLUMNS = (
    *("path", "sha256", "source", "url", "licence", "attribution"),
    *("event", "orig_label", "reason", "group", "split", "published_split"),
    *("duration_s", "rms_dbfs", "peak_dbfs", "clipped_frac", "silent_frac", "tonal_frac"),
    *("orig_rate", "orig_ch", "orig_format"),
)
Progress = Callable[[int, int, float], None]


def import_source(
    source: Source,
    options: ImportOptions,
    out: Path,
    *,
    seed: int = 1,
    published_splits: bool = False,
    convert: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find, measure, split and write ``out``/manifest.csv.

    Args:
        published_splits: keep the source's own split, made clean by group, where it has one.
        convert: turn what libsndfile cannot read into FLAC under ``out``/audio, by ffmpeg.
        jobs: processes that measure.

    Returns:
        Counts: clips and groups by split and event, what was left out and why, notes.

    Raises:
        InputError: the layout is not the published one, or no clip is usable.
        UsageError: ``out`` holds a manifest already.
        MissingPart: ``convert`` without ffmpeg.
    """
    if (out / MANIFEST).exists():
        raise UsageError(f"{out / MANIFEST}: is there already; choose another folder")
    if convert and shutil.which("ffmpeg") is None:
        raise MissingPart("--convert needs ffmpeg, which is not installed; install it")
    found = source.find(options)
    out.mkdir(parents=True, exist_ok=True)
    rows = _measured(found, out, convert, jobs, progress)
    rows = _without_copies(rows, found)
    if not rows:
        raise InputError(f"{options.root}: no usable clip of {source.name}; {_why(found)}")
    groups = [row["group"] for row in rows]
    labels = [f"{row['event']}/{row['orig_label']}" for row in rows]
    moved = 0
    if published_splits:
        splits, moved = keep_published(groups, _published(rows, source), labels, seed=seed)
    else:
        splits = assign_splits(groups, labels, seed=seed)
    for row, split in zip(rows, splits, strict=True):
        row["split"] = split
    write_manifest(rows, out / MANIFEST)
    return {
        "manifest": str(out / MANIFEST),
        **summary(rows),
        "left_out": dict(found.left_out),
        "groups_moved": moved,
        "notes": found.notes,
    }


def write_manifest(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV: the known columns first, others in order of the alphabet."""
    extra = sorted({name for row in rows for name in row} - set(COLUMNS))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, (*COLUMNS, *extra), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    with write_aside(path) as file:
        file.write(text.getvalue().encode())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Clips, groups and seconds, in all, by split and by event."""
    events = sorted({row["event"] for row in rows})
    return {
        "clips": len(rows),
        "groups": len({row["group"] for row in rows}),
        "hours": round(sum(float(row["duration_s"]) for row in rows) / 3600, 3),
        "splits": {split: sum(row["split"] == split for row in rows) for split in SPLITS},
        "events": {
            event: {split: _count(rows, event, split) for split in SPLITS} for event in events
        },
        "licences": dict(Counter(row["licence"] for row in rows).most_common()),
    }


def _count(rows: list[dict[str, Any]], event: str, split: str) -> dict[str, int]:
    members = [row for row in rows if row["event"] == event and row["split"] == split]
    return {"clips": len(members), "groups": len({row["group"] for row in members})}


def _measured(
    found: Findings, out: Path, convert: bool, jobs: int, progress: Progress | None
) -> list[dict[str, Any]]:
    clips = [_readable(clip, out, convert, number) for number, clip in enumerate(found.clips)]
    rows: list[dict[str, Any]] = []
    for done, (clip, measured) in enumerate(zip(clips, _measure_all(clips, jobs), strict=True), 1):
        if isinstance(measured, str):
            found.left_out[measured] += 1
        else:
            rows.append(_row(clip, measured, out))
        if progress:
            progress(done, len(clips), float("nan"))
    return rows


def _measure_all(clips: list[Found], jobs: int) -> Iterator[dict[str, Any] | str]:
    paths = [clip.path for clip in clips]
    if jobs <= 1:
        yield from map(_measure_or_why, paths)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_measure_or_why, paths, chunksize=16)


def _measure_or_why(path: Path) -> dict[str, Any] | str:
    try:
        return measure(path)
    except InputError as error:
        text = str(error)
        if "cannot be read" in text:
            return f"not readable as audio ({path.suffix.lower() or 'no suffix'}; try --convert)"
        return "empty or not numbers"


def _readable(clip: Found, out: Path, convert: bool, number: int) -> Found:
    """The clip itself, or where asked and needed its 16 kHz FLAC."""
    if not convert:
        return clip
    try:
        soundfile.info(str(clip.path))
        return clip
    except (soundfile.LibsndfileError, RuntimeError):
        pass
    target = out / "audio" / f"{number:06d}_{clip.path.stem}.flac"
    target.parent.mkdir(parents=True, exist_ok=True)
    words = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(clip.path)]
    words += ["-ac", "1", "-ar", "16000", "-sample_fmt", "s16", str(target)]
    done = subprocess.run(words, capture_output=True)
    if done.returncode:
        target.unlink(missing_ok=True)
        return clip
    return replace(clip, path=target)


def _row(clip: Found, measured: dict[str, Any], out: Path) -> dict[str, Any]:
    return {
        **clip.extra,
        "path": os.path.relpath(clip.path, out),
        "source": clip.source,
        "url": clip.url,
        "licence": clip.licence,
        "attribution": clip.attribution,
        "event": clip.event,
        "orig_label": clip.orig_label,
        "reason": clip.reason,
        "group": clip.group,
        "published_split": clip.published_split,
        **measured,
    }


def _without_copies(rows: list[dict[str, Any]], found: Findings) -> list[dict[str, Any]]:
    """Drop files of the same bytes; where their labels differ none is kept, as neither is sure."""
    of_digest: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_digest.setdefault(row["sha256"], []).append(row)
    kept: list[dict[str, Any]] = []
    for members in of_digest.values():
        if len({(row["event"], row["orig_label"]) for row in members}) > 1:
            found.left_out["same bytes under two labels"] += len(members)
            continue
        kept.append(members[0])
        if len(members) > 1:
            found.left_out["same bytes as another clip"] += len(members) - 1
    return kept


def _published(rows: list[dict[str, Any]], source: Source) -> list[str]:
    splits = [str(row["published_split"]) for row in rows]
    odd = sorted(set(splits) - set(SPLITS))
    if odd:
        raise UsageError(
            f"{source.name} has no split of its own for every clip ({odd[0]!r}); "
            "leave out --published-splits"
        )
    return splits


def _why(found: Findings) -> str:
    if not found.left_out:
        return "none was found"
    return "left out: " + "; ".join(f"{reason} ({n})" for reason, n in found.left_out.items())
