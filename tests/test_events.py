"""Event lines keep to schema version 1."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from crykit.events import (
    CryEvent,
    CryStarted,
    encode_line,
    event_line,
    lost_audio_fields,
    status_fields,
)

CRY = CryEvent("01J", 12.3401, 20.1, 0.98123, 0.91, -31.24)
STARTED = CryStarted("01J", 12.3401, 12.7, 0.9)


def parsed(line: bytes) -> dict:
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    return json.loads(line)


def test_a_finished_cry() -> None:
    assert parsed(event_line(CRY, source="night.flac", model="m@sha256:ab")) == {
        "schema_version": 1,
        "type": "cry",
        "id": "01J",
        "source": "night.flac",
        "start": None,
        "onset_s": 12.34,
        "offset_s": 20.1,
        "peak_probability": 0.9812,
        "mean_probability": 0.91,
        "level_dbfs": -31.2,
        "reasons": {"evidence": "none", "probabilities": None},
        "model": "m@sha256:ab",
    }
    assert CRY.duration_s == 20.1 - 12.3401


def test_a_started_cry_says_when_it_was_known() -> None:
    line = parsed(event_line(STARTED, source="mic", model="m"))
    assert line["type"] == "cry_started"
    assert (line["id"], line["onset_s"], line["detected_s"]) == ("01J", 12.34, 12.7)
    assert "offset_s" not in line and "reasons" not in line


def test_start_is_the_onset_on_the_clock_of_the_room() -> None:
    begun = datetime(2026, 11, 20, 3, 12, 31, 780_000, timezone(timedelta(hours=1)))
    line = parsed(event_line(CRY, source="s", model="m", stream_start=begun))
    assert line["start"] == "2026-11-20T03:12:44.120+01:00"


def test_other_lines() -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    lost = lost_audio_fields(source="mic", model="m", at=at, lost_s=0.5, total_lost_s=1.25)
    assert (lost["type"], lost["lost_s"], lost["total_lost_s"]) == ("lost_audio", 0.5, 1.25)
    status = status_fields("listening", source="mic", model="m", at=at, rate_hz=48_000)
    assert (status["type"], status["state"], status["rate_hz"]) == ("status", "listening", 48_000)
    assert status["start"] == "2026-11-20T00:00:00.000+00:00"
    assert status["schema_version"] == lost["schema_version"] == 1


def test_a_file_name_that_is_no_unicode_still_makes_json() -> None:
    assert parsed(encode_line({"source": "caf\udce9.wav"})) == {"source": "caf\\udce9.wav"}
