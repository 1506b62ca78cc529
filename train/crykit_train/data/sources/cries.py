"""Cry corpora that their owners give out on request: Baby Chillanto and CryCeleb2023."""

from __future__ import annotations

import re

from crykit.errors import InputError
from crykit_train.data.sources.base import (
    Findings,
    Found,
    ImportOptions,
    audio_files,
    compiled,
    find_file,
    read_rows,
)

CHILLANTO_URL = "https://ccc.inaoep.mx"
CHILLANTO_CLASSES = {
    "asphyxia": "asphyxia",
    "asfixia": "asphyxia",
    "deaf": "deaf",
    "sordo": "deaf",
    "hunger": "hungry",
    "hungry": "hungry",
    "hambre": "hungry",
    "normal": "normal",
    "pain": "pain",
    "dolor": "pain",
}
CHILLANTO_GROUP = r"^(\d+)"
CRYCELEB_URL = "https://huggingface.co/datasets/Ubenwa/CryCeleb2023"
CRYCELEB_LICENCE = "CC BY-NC-ND 4.0"


def find_chillanto(options: ImportOptions) -> Findings:
    """Baby Chillanto (Reyes-Galaviz et al., MICAI 2004): a folder of one-second cries a class.

    A file's name begins with the number of the infant, which ``group_pattern`` may put otherwise;
    numbers of two classes are two infants. Where a name has none, the whole class is one group:
    one-second pieces of one cry on both sides of a split are the best-known leak of this set.
    """
    pattern = compiled(options.group_pattern or CHILLANTO_GROUP)
    found = Findings()
    unnamed: set[str] = set()
    for path in audio_files(options.root):
        label = CHILLANTO_CLASSES.get(path.parent.name.lower().replace("_cry", "").strip())
        if label is None:
            found.left_out["not in a folder named after a class"] += 1
            continue
        name = pattern.search(path.stem)
        if name is None:
            unnamed.add(label)
        found.clips.append(
            Found(
                path=path,
                event="cry",
                group=f"bc:{label}:{name[1] if name else 'all'}",
                source="chillanto",
                url=CHILLANTO_URL,
                licence=options.licence or "none stated",
                attribution="Baby Chillanto Data Base, INAOE-CONACYT, Mexico",
                orig_label=label,
                reason=label if label in ("hungry", "pain") else "",
            )
        )
    if not found.clips:
        raise InputError(
            f"{options.root}: expected folders named asphyxia, deaf, hunger, normal, pain"
        )
    found.notes += [
        f"{label}: names tell no infant, so the class is one group; give --group-pattern"
        for label in sorted(unnamed)
    ]
    return found


def find_cryceleb(options: ImportOptions) -> Findings:
    """CryCeleb2023 (Budaghyan et al., ICASSP 2024): ``metadata.csv`` and ``audio/``.

    The infant is the group. The test part hides the infants behind ids of single recordings, so
    that one infant may have two: it is one group as a whole.
    """
    table = find_file(options.root, "metadata.csv")
    found = Findings()
    for row in read_rows(table, ("baby_id", "file_name")):
        places = (table.parent / row["file_name"], table.parent / "audio" / row["file_name"])
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            found.left_out["audio missing"] += 1
            continue
        hidden = re.search("anonymous", row["baby_id"] + row["file_name"]) is not None
        split = row.get("split", "")
        found.clips.append(
            Found(
                path=path,
                event="cry",
                group="cc:anonymous" if hidden else f"cc:{row['baby_id']}",
                source="cryceleb",
                url=CRYCELEB_URL,
                licence=CRYCELEB_LICENCE,
                attribution="CryCeleb2023, Ubenwa Health",
                orig_label="cry",
                published_split={"dev": "val"}.get(split, split or "train"),
                extra={"period": row.get("period", "")},
            )
        )
    return found
