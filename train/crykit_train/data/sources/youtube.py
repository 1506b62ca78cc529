"""AudioSet (Gemmeke et al., ICASSP 2017) and VGGSound (Chen et al., ICASSP 2020).

Both publish lists of segments of videos, not audio: the clips come from a folder of the user's.
The video is the group. The labels are CC BY 4.0; the audio is the uploaders', on terms that the
lists do not tell, and so not for commercial use.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crykit.errors import InputError
from crykit_train.data.events import event_of, weightiest
from crykit_train.data.sources.base import (
    Findings,
    Found,
    ImportOptions,
    audio_files,
    find_file,
    read_rows,
)

LICENCE = "none stated (labels CC BY 4.0)"
AUDIOSET_URL = "https://research.google.com/audioset/"
VGGSOUND_URL = "https://www.robots.ox.ac.uk/~vgg/data/vggsound/"
SEGMENTS = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
}
_ID = re.compile(r"[A-Za-z0-9_-]{11}")


def find_audioset(options: ImportOptions) -> Findings:
    """Segments of the lists that are there, whose audio is in the folder.

    Names come from ``ontology.json``, else ``class_labels_indices.csv``. A clip is a file whose
    name begins with the video's id, with or without a Y before it.
    """
    ontology = _Ontology.read(options.root)
    audio = _by_video(options.audio_root)
    found = Findings()
    for name, split in SEGMENTS.items():
        try:
            table = find_file(options.root, name)
        except InputError:
            continue
        for video, start_s, end_s, mids in _segments(table):
            path = audio.get(video)
            if path is None:
                found.left_out["audio missing"] += 1
                continue
            names = [ontology.name(mid) for mid in mids]
            found.clips.append(
                Found(
                    path=path,
                    event=weightiest(ontology.event(mid) for mid in mids),
                    group=f"yt:{video}",
                    source="audioset",
                    url=AUDIOSET_URL,
                    licence=LICENCE,
                    attribution=f"https://youtu.be/{video}?t={int(float(start_s))}",
                    orig_label=names[0] if names else "",
                    published_split=split,
                    extra={"labels": ";".join(names), "start_s": start_s, "end_s": end_s},
                )
            )
    if not found.clips and not found.left_out:
        raise InputError(
            f"{options.root}: expected one of {', '.join(SEGMENTS)} in it; give AudioSet's lists"
        )
    return found


def find_vggsound(options: ImportOptions) -> Findings:
    """Rows of ``vggsound.csv`` (video, start, label, split; no header) whose audio is there.

    A clip is ``VIDEO_SSSSSS.*``, the start in six digits, as the set's own scripts write it.
    """
    table = find_file(options.root, "vggsound.csv")
    files = {path.stem: path for path in audio_files(options.audio_root)}
    found = Findings()
    for line, row in enumerate(_plain_rows(table), start=1):
        if len(row) != 4 or not row[1].strip().isdigit() or row[3] not in ("train", "test"):
            raise InputError(f"{table}, line {line}: expected video, start, label, split")
        video, start_s, label, split = row
        path = files.get(f"{video}_{int(start_s):06d}") or files.get(video)
        if path is None:
            found.left_out["audio missing"] += 1
            continue
        found.clips.append(
            Found(
                path=path,
                event=event_of(label),
                group=f"yt:{video}",
                source="vggsound",
                url=VGGSOUND_URL,
                licence=LICENCE,
                attribution=f"https://youtu.be/{video}?t={start_s}",
                orig_label=label,
                published_split=split,
                extra={"start_s": start_s},
            )
        )
    return found


class _Ontology:
    """Names of AudioSet's classes by machine id, and the classes above each."""

    def __init__(self, names: dict[str, str], parents: dict[str, str]) -> None:
        self.names, self.parents = names, parents

    @classmethod
    def read(cls, root: Path) -> _Ontology:
        try:
            table = find_file(root, "ontology.json")
        except InputError:
            rows = read_rows(find_file(root, "class_labels_indices.csv"), ("mid", "display_name"))
            return cls({row["mid"]: row["display_name"] for row in rows}, {})
        try:
            classes: list[dict[str, Any]] = json.loads(table.read_bytes())
            names = {str(c["id"]): str(c["name"]) for c in classes}
            parents = {str(child): str(c["id"]) for c in classes for child in c["child_ids"]}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{table}: is no ontology as AudioSet publishes it ({error})"
            ) from None
        return cls(names, parents)

    def name(self, mid: str) -> str:
        return self.names.get(mid, mid)

    def event(self, mid: str) -> str:
        """The event of a class, else of the nearest class above it that has one."""
        seen: set[str] = set()
        while mid not in seen:
            seen.add(mid)
            event = event_of(self.name(mid))
            if event != "other" or mid not in self.parents:
                return event
            mid = self.parents[mid]
        return "other"


def _segments(table: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Rows of an AudioSet list; its first lines are comments."""
    for line, row in enumerate(_plain_rows(table), start=1):
        if row[0].startswith("#"):
            continue
        if len(row) != 4:
            raise InputError(f"{table}, line {line}: expected video, start, end, labels")
        yield row[0], row[1], row[2], [mid for mid in row[3].split(",") if mid]


def _plain_rows(table: Path) -> Iterator[list[str]]:
    try:
        with table.open(newline="", encoding="utf-8") as handle:
            yield from (row for row in csv.reader(handle, skipinitialspace=True) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as CSV ({error})") from None


def _by_video(folder: Path) -> dict[str, Path]:
    """Sound files by the video's id, which their names begin with."""
    return {video: path for path in audio_files(folder) for video in _ids(path.stem)}


def _ids(stem: str) -> Iterable[str]:
    for text in (stem, stem[1:] if stem.startswith("Y") else ""):
        if _ID.fullmatch(text[:11]) and (len(text) == 11 or text[11] in "_-."):
            yield text[:11]
