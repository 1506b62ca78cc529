"""The vectors that hold the gates of all the phone kits to the Python one."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from make_gate_vectors import PATH, as_json, from_json, is_certain

VECTORS: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))["vectors"]


def test_the_file_says_what_the_python_gate_says() -> None:
    for vector in VECTORS:
        assert as_json(from_json(vector)) == vector


def test_every_pattern_of_events_is_shown_several_times() -> None:
    shown = Counter(name for vector in VECTORS for name in vector["shows"])
    wanted = (
        "none, one, several, many, merged, merged twice, dropped, bridged, smoothed, walked back, "
        "walked back no further, pause of the merge gap, length of min on, at a threshold, "
        "equal thresholds, later clock, silent event, open at the end"
    )
    assert {name for name, times in shown.items() if times >= 10} == set(wanted.split(", "))


def test_what_opens_closes_and_the_numbers_add_up() -> None:
    types = Counter(change["type"] for vector in VECTORS for change in vector["found"])
    assert types["opened"] == types["closed"] >= 100
    for vector in VECTORS:
        assert [c["type"] for c in vector["found"]] == ["opened", "closed"] * (
            len(vector["found"]) // 2
        )
        assert len(vector["probabilities"]) == len(vector["levels_dbfs"])


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("on_threshold", 0.99),
        ("off_threshold", 0.01),
        ("smoothing_ms", 120.0),
        ("min_on_ms", 1000.0),
        ("min_off_ms", 1000.0),
        ("merge_gap_ms", 5000.0),
    ],
)
def test_a_port_that_ignored_a_setting_would_be_caught(field: str, other: float) -> None:
    cases = [from_json(vector) for vector in VECTORS]
    assert sum(case.found() != case.found(**{field: other}) for case in cases) >= 20


def test_no_event_hangs_on_the_last_digit_of_another_languages_exp() -> None:
    assert all(is_certain(from_json(vector)) for vector in VECTORS)


def test_the_file_is_small_and_of_the_format_that_the_kits_read() -> None:
    whole = json.loads(PATH.read_text(encoding="utf-8"))
    assert whole["format_version"] == 1 and 60 <= len(whole["vectors"]) <= 120
    assert PATH.stat().st_size <= 300_000
    for vector in whole["vectors"]:
        assert set(vector) == {
            "shows",
            "settings",
            "frame_samples",
            "sample_rate_hz",
            "first_sample",
            "probabilities",
            "levels_dbfs",
            "found",
        }
