"""Donate-a-cry (G. Veres, 2015): cries that parents recorded and tagged with a reason.

A file's name tells the app installation, the time, the app's version, sex, age and reason
(README of github.com/gveres/donateacry-corpus). The installation is the group: the nearest thing
to a baby that is known. The cleaned set has a folder for each reason; the raw uploads that it
leaves out are ``unverified``.
"""

from __future__ import annotations

import re
from pathlib import Path

from crykit.errors import InputError
from crykit_train.data.sources.base import Findings, Found, ImportOptions, audio_files

URL = "https://github.com/gveres/donateacry-corpus"
ARCHIVE_URL = f"{URL}/archive/refs/heads/master.zip"
LICENCE = "ODbL 1.0 (database), DbCL 1.0 (contents)"
CLEANED = "donateacry_corpus_cleaned_and_updated_data"

NAME = re.compile(
    r"(?P<app>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})-(?P<time>\d+)-"
    r"(?P<version>[\d.]+)-(?P<sex>[mf])-(?P<age>\d\d)-(?P<reason>[a-z]{2})"
)
REASONS = {
    "hu": "hungry",
    "bu": "burping",
    "bp": "belly_pain",
    "dc": "discomfort",
    "ti": "tired",
    "lo": "lonely",
    "ch": "cold_hot",
    "sc": "scared",
    "dk": "unknown",
}
SEXES = {"m": "male", "f": "female"}
AGES = {
    "04": "0-4 weeks",
    "48": "4-8 weeks",
    "26": "2-6 months",
    "72": "7 months-2 years",
    "22": "over 2 years",
}


def find(options: ImportOptions) -> Findings:
    """Cleaned cries, and raw uploads that are not among them."""
    found = Findings()
    cleaned: dict[str, Path] = {}
    raw: dict[str, Path] = {}
    for path in audio_files(options.root):
        if not NAME.fullmatch(path.stem):
            found.left_out["name does not follow the corpus's convention"] += 1
        elif path.parent.name in REASONS.values() or path.parent.parent.name == CLEANED:
            cleaned[path.stem.lower()] = path
        else:
            raw[path.stem.lower()] = path
    found.clips.extend(_clip(path, cleaned=True) for path in cleaned.values())
    found.clips.extend(_clip(p, cleaned=False) for stem, p in raw.items() if stem not in cleaned)
    if not found.clips:
        raise InputError(
            f"{options.root}: no recording named as the corpus names them "
            "(UUID-time-version-sex-age-reason); give its checkout"
        )
    return found


def _clip(path: Path, *, cleaned: bool) -> Found:
    name = NAME.fullmatch(path.stem)
    assert name is not None
    tagged = REASONS.get(name["reason"], "unknown")
    # The cleaned set was relabelled: there the folder counts, not the tag in the name.
    reason = path.parent.name if cleaned else ""
    return Found(
        path=path,
        event="cry" if cleaned else "unverified",
        group=f"da:{name['app'].lower()}",
        source="donateacry" if cleaned else "donateacry_raw",
        url=URL,
        licence=LICENCE,
        attribution="Donate-a-cry corpus, G. Veres and contributors",
        orig_label=reason if cleaned else f"raw_tag:{tagged}",
        reason=reason,
        extra={
            "gender": SEXES[name["sex"]],
            "age_group": AGES.get(name["age"], "unknown"),
        },
    )
