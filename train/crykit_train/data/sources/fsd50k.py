"""FSD50K (Fonseca et al., TASLP 30, 2022): 51,197 Freesound clips under AudioSet's ontology.

``FSD50K.ground_truth/{dev,eval}.csv`` name labels and split, ``FSD50K.metadata/*_clips_info``
uploader and licence of each clip. The uploader is the group, as in the set's own split (section
IV-D there), since one person records with one microphone in one place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crykit.errors import InputError
from crykit_train.data.events import event_of_all
from crykit_train.data.licences import canonical_licence
from crykit_train.data.sources.base import Findings, Found, ImportOptions, find_file, read_rows

URL = "https://zenodo.org/records/4060432"


def find(options: ImportOptions) -> Findings:
    """Clips of the parts that are there: dev, eval or both."""
    found = Findings()
    tables = []
    for part in ("dev", "eval"):
        try:
            tables.append((part, find_file(options.root, f"FSD50K.ground_truth/{part}.csv")))
        except InputError:
            found.notes.append(f"no {part}.csv")
    if not tables:
        find_file(options.root, "FSD50K.ground_truth/dev.csv")
    for part, table in tables:
        top = table.parent.parent
        info = _clips_info(top / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json")
        for row in read_rows(table, ("fname", "labels")):
            path = top / f"FSD50K.{part}_audio" / f"{row['fname']}.wav"
            if not path.is_file():
                found.left_out["audio missing"] += 1
                continue
            found.clips.append(_clip(path, row, info.get(row["fname"]), part))
    return found


def _clip(path: Path, row: dict[str, str], info: dict[str, Any] | None, part: str) -> Found:
    labels = [name.strip() for name in row["labels"].split(",") if name.strip()]
    uploader = str(info["uploader"]) if info else ""
    return Found(
        path=path,
        event=event_of_all(labels),
        # A clip whose uploader is not known is a group of its own.
        group=f"fsu:{uploader}" if uploader else f"fs:{row['fname']}",
        source="fsd50k",
        url=URL,
        licence=canonical_licence(str(info["license"])) if info else "none stated",
        attribution=f"https://freesound.org/s/{row['fname']}/" + (f" by {uploader}" * bool(info)),
        orig_label=labels[0] if labels else "",
        published_split="test" if part == "eval" else row.get("split") or "train",
        extra={"labels": ";".join(labels)},
    )


def _clips_info(path: Path) -> dict[str, dict[str, Any]]:
    try:
        info: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
    except OSError:
        raise InputError(
            f"{path}: is missing; it tells who uploaded each clip and on what terms"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error})") from None
    return info
