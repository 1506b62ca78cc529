"""The report as JSON and CSV: the same figures, for machines."""

from __future__ import annotations

import csv
import dataclasses
import io
from datetime import datetime
from typing import Any

import msgspec

from crykit_app.report.facts import Bout, Cry, Night
from crykit_app.report.period import local
from crykit_app.report.spans import Span
from crykit_app.report.trends import NightSum
from crykit_app.report.words import NO_DEVICE, NO_REASON

SCHEMA_VERSION = 1

CSV_COLUMNS = (
    "kind",
    "start",
    "end",
    "length_s",
    "cries",
    "crying_s",
    "level_dbfs",
    "peak_probability",
    "mean_probability",
    "id",
    "source",
    "model",
    "note",
)


def as_json(night: Night, month: list[NightSum]) -> bytes:
    """One object; times are ISO 8601 with the local offset, lengths seconds."""
    quiet, bout = night.longest_quiet, night.longest_bout
    document = {
        "schema_version": SCHEMA_VERSION,
        "type": "night_report",
        "night": night.period.night,
        "start": _iso(night.period.begin),
        "end": _iso(night.period.end),
        "made": _iso(night.now),
        "totals": {
            "cries": len(night.cries),
            "bouts": len(night.bouts),
            "crying_s": _s(night.crying_s),
            "listened_s": _s(night.listened_s),
            "not_listening_s": _s(night.not_listening_s),
            "lost_audio_s": _s(night.lost_s),
            "longest_quiet": _span(quiet) if quiet else None,
            "longest_bout": _span(bout.span) if bout else None,
            "loudest_dbfs": _rounded(night.loudest_dbfs, 1),
            "median_dbfs": _rounded(night.median_dbfs, 1),
            "cries_without_end": night.open_cries,
            "cries_without_time": night.unplaced,
        },
        "clock_set_back": night.clock_set_back,
        "still_listening": night.still_listening,
        "bouts": [_bout(bout) for bout in night.bouts],
        "cries": [_cry(cry) for cry in night.cries],
        "listening": [_span(span) for span in night.listening],
        "not_listening": [{**_span(gap.span), "why": gap.why} for gap in night.gaps],
        "lost_audio": [{"at": _iso(at), "lost_s": _s(lost_s)} for at, lost_s in night.lost],
        "nights": [_night(each) for each in month],
        "sources": [_printable(source) for source in night.sources],
        "models": night.models,
        "notes": [NO_DEVICE, NO_REASON],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def as_csv(night: Night, month: list[NightSum]) -> bytes:
    """A row for each cry, bout, stretch, gap, loss and night of the month; `kind` tells which."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)

    def row(kind: str, fields: dict[str, Any], note: str = "") -> None:
        known = {**fields, "kind": kind, "note": note}
        writer.writerow([known.get(name, "") for name in CSV_COLUMNS])

    for cry in night.cries:
        row("cry", _cry(cry), "" if cry.end else _open(cry))
    for bout in night.bouts:
        row("bout", _bout(bout))
    for span in night.listening:
        row("listening", _span(span))
    for gap in night.gaps:
        row("not_listening", _span(gap.span), gap.why)
    for at, lost_s in night.lost:
        row("lost_audio", {"start": _iso(at), "length_s": _s(lost_s)})
    for each in month:
        fields = {"start": each.night.isoformat(), "cries": each.cries}
        fields |= {"crying_s": _s(each.crying_s)}
        row("night", fields, f"listened {_s(each.listened_s)} s")
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cry(cry: Cry) -> dict[str, Any]:
    return {
        "id": cry.id,
        "start": _iso(cry.begin),
        "end": _iso(cry.end) if cry.end else None,
        "length_s": _s((cry.end - cry.begin).total_seconds()) if cry.end else None,
        "goes_on": cry.goes_on,
        "level_dbfs": _rounded(cry.level_dbfs, 1),
        "peak_probability": _rounded(cry.peak_probability, 4),
        "mean_probability": _rounded(cry.mean_probability, 4),
        "source": _printable(cry.source),
        "model": cry.model,
    }


def _bout(bout: Bout) -> dict[str, Any]:
    return {
        **_span(bout.span),
        "cries": bout.cries,
        "crying_s": _s(bout.crying_s),
        "level_dbfs": _rounded(bout.loudest_dbfs, 1),
    }


def _night(each: NightSum) -> dict[str, Any]:
    lengths = {
        field.name: _s(value) if isinstance(value := getattr(each, field.name), float) else value
        for field in dataclasses.fields(each)
    }
    return lengths


def _span(span: Span) -> dict[str, Any]:
    return {"start": _iso(span.begin), "end": _iso(span.end), "length_s": _s(span.seconds)}


def _open(cry: Cry) -> str:
    return "goes on" if cry.goes_on else "its end was never written"


def _iso(moment: datetime) -> str:
    return local(moment).isoformat(timespec="seconds")


def _s(seconds: float) -> float:
    return round(seconds, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
