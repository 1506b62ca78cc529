"""What the licence of a clip allows, from the words in a manifest's ``licence`` column.

The reading is strict on purpose: a licence that is not recognised in full, or none at all, allows
nothing. Where a text names several licences (a database's and its contents'), all of them hold.
This sorts clips; it is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from crykit.dataset import Clip
from crykit.errors import InputError, UsageError

COMMERCIAL = "commercial"
"""The filter that keeps clips whose licence allows commercial use."""


@dataclass(frozen=True)
class Licence:
    """Terms of use. ``unknown`` is set where the text names no licence that is known here."""

    commercial: bool
    share_alike: bool
    attribution: bool
    derivatives: bool
    unknown: bool


_UNKNOWN = Licence(False, False, True, False, True)
_URL = re.compile(r"(?:https?://)?(?:www\.)?creativecommons\.org/([a-z]+)/([a-z+-]+)/?([0-9.]*)\S*")
_CREATIVE_COMMONS = re.compile(
    r"cc[ -]?(?P<terms>by(?:[ -](?:nc|sa|nd))*)(?:[ -]?v?[0-9.]+)?(?: (?:int|intl|international))?"
)
# Canonical texts of other licences: a pattern with (commercial, share-alike, attribution).
_OTHERS: tuple[tuple[str, tuple[bool, bool, bool]], ...] = (
    (r"cc[ -]?0(?:[ -]?1\.0)?(?: universal)?", (True, False, False)),
    (r"public domain(?: mark)?(?: 1\.0)?|pd|unlicense", (True, False, False)),
    (r"pddl(?: ?1\.0)?", (True, False, False)),
    (r"odbl(?:[ -]?1\.0)?", (True, True, True)),
    (r"dbcl(?:[ -]?1\.0)?", (True, False, False)),
    (r"odc-by(?:[ -]?1\.0)?", (True, False, True)),
    (r"cdla-permissive(?:[ -]?[12]\.0)?", (True, False, True)),
    (r"mit|apache(?:[ -]?2\.0)?|bsd(?:-[23]-clause)?", (True, False, True)),
    # Sampling Plus forbids advertising, and whole copies for money: no plain commercial use.
    (r"cc sampling ?\+(?: ?1\.0)?|cc sampling plus(?: ?1\.0)?", (False, False, True)),
)
_SPELT_OUT = (
    (r"creative commons", "cc"),
    (r"\bcc[ -]zero\b", "cc0"),
    (r"\battribution\b", "by"),
    (r"\bnon[ -]?commercial\b", "nc"),
    (r"\bshare[ -]?alike\b", "sa"),
    (r"\bno[ -]?deriv(?:ative)?s?\b", "nd"),
)


def parse_licence(text: str) -> Licence:
    """Read a licence column, such as ``CC BY-NC 3.0`` or ``ODbL 1.0 (database), DbCL 1.0``.

    Remarks in parentheses are left aside unless they say "non-commercial"; licences are told apart
    by commas, semicolons, `` / ``, "and", "or".
    """
    plain = _plain(text)
    if re.search(r"non[ -]?commercial|research|academic|personal|evaluation", text.lower()):
        found = [_one(part) for part in _parts(plain)]
        return _joined([Licence(False, False, True, True, False), *found])
    parts = _parts(plain)
    return _joined([_one(part) for part in parts]) if parts else _UNKNOWN


def canonical_licence(text: str) -> str:
    """A licence as manifests name it: a Creative Commons address becomes ``CC BY-NC 3.0``."""
    text = text.strip()
    found = _URL.fullmatch(text.lower())
    if not found:
        return text or "none stated"
    kind, terms, version = found.groups()
    name = {"zero": "CC0", "mark": "public domain", "publicdomain": "public domain"}.get(terms)
    if kind in ("publicdomain", "licenses") and name:
        return f"{name} {version}".strip() if name == "CC0" else name
    words = terms if terms.startswith("sampling") else terms.upper()
    return f"CC {words.replace('sampling', 'Sampling')} {version}".strip()


def allows_commercial_use(licence: str) -> bool:
    """Whether a model trained on the clip may be sold: every licence named must allow it.

    False where none is stated or known, for NC and Sampling+, and for ND, which allows no
    adaptation.
    """
    terms = parse_licence(licence)
    return terms.commercial and terms.derivatives and not terms.unknown


def filter_licences(clips: Iterable[Clip], wanted: str) -> list[Clip]:
    """The clips that a recipe's licence filter keeps: all for "", else those for commercial use.

    Raises:
        UsageError: an unknown filter.
        InputError: nothing is left.
    """
    clips = list(clips)
    if not wanted:
        return clips
    if wanted != COMMERCIAL:
        raise UsageError(
            f'licence filter {wanted!r}: expected "{COMMERCIAL}" or "" (every licence)'
        )
    kept = [clip for clip in clips if allows_commercial_use(clip.licence)]
    if not kept:
        raise InputError(
            f"licence filter: none of {len(clips)} clips has a licence that allows commercial use; "
            "fill the manifest's licence column, or drop the filter"
        )
    return kept


def _plain(text: str) -> str:
    text = _URL.sub(lambda found: canonical_licence(found.group(0)), text.lower()).lower()
    text = re.sub(r"\([^)]*\)", " ", text)
    for pattern, short in _SPELT_OUT:
        text = re.sub(pattern, short, text)
    return re.sub(r"\s+", " ", text).strip()


def _parts(plain: str) -> list[str]:
    parts = re.split(r"[,;|]| / | and | or ", plain)
    return [part.strip(" .") for part in parts if part.strip(" .")]


def _one(part: str) -> Licence:
    found = _CREATIVE_COMMONS.fullmatch(part)
    if found:
        terms = re.split(r"[ -]", found["terms"])
        return Licence("nc" not in terms, "sa" in terms, True, "nd" not in terms, False)
    if part in ("by", "by-nc", "by nc"):  # Freesound's own short names: "Attribution"
        return Licence(part == "by", False, True, True, False)
    for pattern, (commercial, share_alike, attribution) in _OTHERS:
        if re.fullmatch(pattern, part):
            return Licence(commercial, share_alike, attribution, True, False)
    return _UNKNOWN


def _joined(parts: list[Licence]) -> Licence:
    return Licence(
        commercial=all(part.commercial for part in parts),
        share_alike=any(part.share_alike for part in parts),
        attribution=any(part.attribution for part in parts),
        derivatives=all(part.derivatives for part in parts),
        unknown=any(part.unknown for part in parts),
    )
