"""What the engine reports, and the JSON lines that carry it (schema version 1).

Times inside an event are seconds from the start of its stream, whatever that stream is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

SCHEMA_VERSION = 1
NO_REASONS: dict[str, Any] = {"evidence": "none", "probabilities": None}
"""What a line says about the reason of a cry where no head has earned its place."""


@dataclass(frozen=True)
class CryStarted:
    """A cry has lasted long enough to be one; `CryEvent` with the same `id` follows at its end.

    `detected_s` is how much of the stream had been heard when this was known.
    """

    id: str
    onset_s: float
    detected_s: float
    peak_probability: float


@dataclass(frozen=True)
class CryEvent:
    """A finished cry. Probabilities and level are over its frames, from onset to offset."""

    id: str
    onset_s: float
    offset_s: float
    peak_probability: float
    mean_probability: float
    level_dbfs: float

    @property
    def duration_s(self) -> float:
        return self.offset_s - self.onset_s


def event_fields(
    event: CryStarted | CryEvent,
    *,
    source: str,
    model: str,
    stream_start: datetime | None = None,
    reasons: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of an event line, in their order.

    Args:
        event: what happened.
        source: the file or device it was heard on.
        model: the bundle's `model_id`.
        stream_start: when the stream began; `start` is that plus the onset, else null.
        reasons: the `reasons` object of a finished cry; without it, no evidence.
    """
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "type": "cry" if isinstance(event, CryEvent) else "cry_started",
        "id": event.id,
        "source": source,
        "start": iso_time(stream_start, event.onset_s),
        "onset_s": round(event.onset_s, 3),
    }
    if isinstance(event, CryEvent):
        fields["offset_s"] = round(event.offset_s, 3)
    else:
        fields["detected_s"] = round(event.detected_s, 3)
    fields["peak_probability"] = round(event.peak_probability, 4)
    if isinstance(event, CryEvent):
        fields["mean_probability"] = round(event.mean_probability, 4)
        fields["level_dbfs"] = round(event.level_dbfs, 1)
        fields["reasons"] = NO_REASONS if reasons is None else reasons
    fields["model"] = model
    return fields


def status_fields(
    state: str, *, source: str, model: str, at: datetime, **more: Any
) -> dict[str, Any]:
    """A `status` line: the listener has started, stopped, lost or regained its device, ..."""
    return {
        "schema_version": SCHEMA_VERSION,
        "type": "status",
        "state": state,
        "source": source,
        "start": at.isoformat(timespec="milliseconds"),
        **more,
        "model": model,
    }


def lost_audio_fields(
    *, source: str, model: str, at: datetime, lost_s: float, total_lost_s: float
) -> dict[str, Any]:
    """A `lost_audio` line: `lost_s` seconds of sound never reached the engine."""
    return {
        "schema_version": SCHEMA_VERSION,
        "type": "lost_audio",
        "source": source,
        "start": at.isoformat(timespec="milliseconds"),
        "lost_s": round(lost_s, 3),
        "total_lost_s": round(total_lost_s, 3),
        "model": model,
    }


def iso_time(stream_start: datetime | None, offset_s: float) -> str | None:
    """ISO 8601 with milliseconds of a moment in the stream; None where its start is unknown."""
    if stream_start is None:
        return None
    return (stream_start + timedelta(seconds=offset_s)).isoformat(timespec="milliseconds")


def encode_line(fields: dict[str, Any]) -> bytes:
    """One JSON object and a newline, UTF-8; lone surrogates of odd file names are escaped away."""
    try:
        return msgspec.json.encode(fields) + b"\n"
    except UnicodeEncodeError:
        clean = {k: _printable(v) if isinstance(v, str) else v for k, v in fields.items()}
        return msgspec.json.encode(clean) + b"\n"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def event_line(
    event: CryStarted | CryEvent,
    *,
    source: str,
    model: str,
    stream_start: datetime | None = None,
    reasons: dict[str, Any] | None = None,
) -> bytes:
    """`event_fields` as one encoded line."""
    return encode_line(
        event_fields(event, source=source, model=model, stream_start=stream_start, reasons=reasons)
    )
