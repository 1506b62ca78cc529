"""ESC-50 (K. J. Piczak, ACM Multimedia 2015): 2000 clips of 5 s from Freesound, 50 classes.

``meta/esc50.csv`` names fold, class and Freesound clip of each; the Freesound clip is the group.
``LICENSE`` names author and terms of each clip, which may be narrower than the set's.
"""

from __future__ import annotations

import re
from pathlib import Path

from crykit_train.data.events import event_of
from crykit_train.data.sources.base import Findings, Found, ImportOptions, find_file, read_rows

URL = "https://github.com/karolpiczak/ESC-50"
ARCHIVE_URL = f"{URL}/archive/refs/heads/master.zip"
COLUMNS = ("filename", "fold", "category", "esc10", "src_file")
EVENTS = {
    "crackling_fire": "noise",
    "crying_baby": "cry",
    "engine": "noise",
    "hand_saw": "noise",
    "pouring_water": "household",
    "water_drops": "household",
    "toilet_flush": "household",
}
_LICENSE_LINE = re.compile(
    r"- \[(?P<clip>[\w-]+)\.ogg\]:\s+clip derived from .*\((?P<page>http\S+)\) by (?P<author>.*) "
    r"\[(?P<licence>[^\]]+)\]\s*$"
)


def find(options: ImportOptions) -> Findings:
    """Every clip of ``meta/esc50.csv`` whose audio is there."""
    table = find_file(options.root, "meta/esc50.csv")
    top = table.parent.parent
    authors = _authors(top / "LICENSE")
    found = Findings()
    for row in read_rows(table, COLUMNS):
        path = top / "audio" / row["filename"]
        if not path.is_file():
            found.left_out["audio missing"] += 1
            continue
        ten = row["esc10"].strip().lower() == "true"
        licence = "CC BY 3.0 (ESC-10 part)" if ten else "CC BY-NC 3.0"
        # 1-100032-A-0.wav is 1-100032-A.ogg in LICENSE.
        page, author, own = authors.get(Path(row["filename"]).stem.rpartition("-")[0], ("", "", ""))
        if "sampling" in own.lower() or "nc" in own.lower().split("-"):
            licence += f", {own} (clip)"
        found.clips.append(
            Found(
                path=path,
                event=EVENTS.get(row["category"]) or event_of(row["category"]),
                group=f"fs:{row['src_file']}",
                source="esc50",
                url=URL,
                licence=licence,
                attribution=f"{page} by {author}" if page else "",
                orig_label=row["category"],
                extra={"fold": row["fold"]},
            )
        )
    return found


def _authors(licence_file: Path) -> dict[str, tuple[str, str, str]]:
    """Clip to its Freesound page, author and licence."""
    if not licence_file.is_file():
        return {}
    text = licence_file.read_text(encoding="utf-8", errors="replace")
    lines = (_LICENSE_LINE.match(line) for line in text.splitlines())
    return {
        m["clip"]: (m["page"], m["author"], m["licence"].replace("CC-", "CC ")) for m in lines if m
    }
