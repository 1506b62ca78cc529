"""Licences: which clips a model for sale may be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from crykit.dataset import Clip, read_manifest
from crykit.errors import InputError, UsageError
from crykit_train.data.licences import (
    allows_commercial_use,
    canonical_licence,
    filter_licences,
    parse_licence,
)

ALLOWED = {
    "ODbL 1.0 (database), DbCL 1.0 (contents)": True,
    "CC BY 4.0": True,
    "CC BY 4.0 (dataset)": True,
    "CC BY 3.0 (ESC-10 part)": True,
    "CC BY": True,
    "CC BY-SA": True,
    "CC0": True,
    "CC0 1.0": True,
    "public domain": True,
    "public domain (contributor waiver)": True,
    "CC BY-NC 3.0": False,
    "CC BY-NC": False,
    "CC Sampling+": False,
    "CC Sampling +": False,
    "none stated": False,
    "unknown": False,
    "": False,
}
"""Every licence text of the recordings that the shipped model was made from."""


@pytest.mark.parametrize(("text", "allowed"), ALLOWED.items())
def test_every_licence_of_the_recordings(text: str, allowed: bool) -> None:
    assert allows_commercial_use(text) is allowed


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("http://creativecommons.org/licenses/by/3.0/", True),
        ("http://creativecommons.org/licenses/by-nc/3.0/", False),
        ("https://creativecommons.org/licenses/by-sa/4.0/deed.en", True),
        ("http://creativecommons.org/publicdomain/zero/1.0/", True),
        ("http://creativecommons.org/licenses/sampling+/1.0/", False),
        ("Creative Commons Attribution 4.0 International", True),
        ("Creative Commons Attribution-NonCommercial 4.0", False),
        ("Attribution", True),
        ("Attribution Noncommercial", False),
        ("cc-by-4.0", True),
        ("cc-by-nc-sa-4.0", False),
        ("CC BY-ND 4.0", False),
        ("CC BY 4.0 / CC BY-NC 4.0", False),
        ("CC0 or CC BY", True),
        ("CC BY 4.0 (non-commercial research only)", False),
        ("not CC BY", False),
        ("CC BY 4.0 and our own terms", False),
        ("MIT", True),
    ],
)
def test_other_spellings(text: str, allowed: bool) -> None:
    assert allows_commercial_use(text) is allowed


def test_terms() -> None:
    assert parse_licence("CC BY-SA 4.0").share_alike
    assert parse_licence("ODbL 1.0 (database), DbCL 1.0 (contents)").share_alike
    assert not parse_licence("CC0").attribution
    assert parse_licence("none stated").unknown
    assert not parse_licence("CC BY-NC 3.0").unknown


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://creativecommons.org/licenses/by-nc/3.0/", "CC BY-NC 3.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "CC Sampling+ 1.0"),
        ("CC BY 4.0", "CC BY 4.0"),
        ("", "none stated"),
    ],
)
def test_canonical_names(address: str, name: str) -> None:
    assert canonical_licence(address) == name
    assert allows_commercial_use(name) == allows_commercial_use(address)


def _clip(licence: str) -> Clip:
    return Clip(Path("a.wav"), "cry", "g", "train", "s", licence, "cry", "", {})


def test_filter() -> None:
    clips = [_clip("CC0"), _clip("CC BY-NC 3.0"), _clip("unknown")]
    assert filter_licences(clips, "commercial") == clips[:1]
    assert filter_licences(clips, "") == clips
    with pytest.raises(UsageError, match="'free'"):
        filter_licences(clips, "free")
    with pytest.raises(InputError, match="none of 2 clips"):
        filter_licences(clips[1:], "commercial")


@pytest.mark.data
def test_the_manifest_holds_no_other_licence(data_root: Path) -> None:
    clips = read_manifest(data_root / "manifest.csv")
    assert {clip.licence for clip in clips} <= set(ALLOWED)
    kept = filter_licences(clips, "commercial")
    assert {clip.source for clip in kept} >= {"donateacry", "speech_commands", "esc50"}
    assert not any("NC" in clip.licence for clip in kept)


def test_the_permissive_model_learned_from_permissive_audio_alone() -> None:
    """What its manifest says it learned from, source by source."""
    from crykit.bundle import open_model_bundle

    manifest = open_model_bundle("cry-student-permissive").manifest
    heard = manifest.training["data"]
    terms = [text for entry in heard for text in entry["licence"].split(" / ")]
    assert len(heard) > 5 and all(allows_commercial_use(text) for text in terms), terms
    assert manifest.training["recipe"]["data"]["licences"] == "commercial"
    assert manifest.training["started_from"] is None
    usual = open_model_bundle("cry-student").manifest.training["data"]
    assert not all(allows_commercial_use(t) for e in usual for t in e["licence"].split(" / "))
