"""Events as JSON lines, a CSV table or an Audacity label track."""

from __future__ import annotations

import csv
import io
import os
from datetime import datetime
from typing import Any, BinaryIO

from crykit.events import CryEvent, CryStarted, encode_line, event_fields

CSV_COLUMNS = (
    "source",
    "start",
    "onset_s",
    "offset_s",
    "peak_probability",
    "mean_probability",
    "level_dbfs",
    "id",
    "model",
)


class EventWriter:
    """Writes each event when it is known, and flushes: whoever reads along sees it at once.

    Args:
        out: bytes go here.
        kind: "jsonl", "csv" or "audacity"; the last two list finished cries only.
        model: the bundle's `model_id`.
        stream_start: when the recording began, if known.
        several: whether labels must name their file.
    """

    def __init__(
        self, out: BinaryIO, kind: str, model: str, stream_start: datetime | None, several: bool
    ) -> None:
        self._out = out
        self._kind = kind
        self._model = model
        self._stream_start = stream_start
        self._several = several
        if kind == "csv":
            self._put(_csv_row(CSV_COLUMNS))

    def write(self, source: str, event: CryStarted | CryEvent) -> None:
        """One event of the recording `source`."""
        fields = event_fields(
            event, source=source, model=self._model, stream_start=self._stream_start
        )
        if self._kind == "jsonl":
            self._put(encode_line(fields))
        elif isinstance(event, CryEvent):
            if self._kind == "csv":
                self._put(_csv_row([fields[name] for name in CSV_COLUMNS]))
            else:
                self._put(self._label(source, event))

    def _label(self, source: str, event: CryEvent) -> bytes:
        name = f"{os.path.basename(source)}: " if self._several else ""
        text = f"{name}cry {event.peak_probability:.2f}".replace("\t", " ").replace("\n", " ")
        line = f"{event.onset_s:.3f}\t{event.offset_s:.3f}\t{text}\n"
        return line.encode("utf-8", "backslashreplace")

    def _put(self, line: bytes) -> None:
        self._out.write(line)
        self._out.flush()


def _csv_row(values: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", "backslashreplace")
