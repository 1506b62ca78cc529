"""Messages as JSON lines (event line schema version 1), flushed one by one."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any, BinaryIO

from crykit.bundle import Bundle
from crykit.events import encode_line, event_line, lost_audio_fields, status_fields
from crykit.runtime import Runtime
from crykit_app.messages import (
    AudioLost,
    CryBegan,
    CryEnded,
    Finished,
    Message,
    Progress,
    StoreRecovered,
    StoreTrouble,
)
from crykit_app.sources import Source


class LineWriter:
    """A `publish` for the engine that writes lines to `out`.

    A `status` line says when listening starts and ends, and every `status_every_s` of wall clock
    that it is still alive, with its figures. Trouble with the event log is a line on stderr, too.
    """

    def __init__(
        self,
        out: BinaryIO,
        source: Source,
        bundle: Bundle,
        runtime: Runtime,
        status_every_s: float = 60.0,
    ) -> None:
        self._out = out
        self._source = source
        self._model_id = bundle.model_id
        self._runtime_name = runtime.name
        self._rate_hz = bundle.manifest.sample_rate_hz
        self._status_every_s = status_every_s
        self._status_due_s: float | None = None

    def __call__(self, message: Message) -> None:
        """Write what `message` is worth; raises `OSError` if the reader is gone."""
        match message:
            case CryBegan() | CryEnded():
                self._write(
                    event_line(
                        message.event,
                        source=self._source.name,
                        model=self._model_id,
                        stream_start=self._source.started_at,
                    )
                )
            case AudioLost():
                self._lost(message)
            case Progress():
                self._progress(message)
            case StoreTrouble() | StoreRecovered():
                print(f"crykit: {message.reason}", file=sys.stderr, flush=True)
                self._status(message.state, reason=message.reason)
            case Finished():
                self._finished(message)
            case _:
                pass

    def _progress(self, message: Progress) -> None:
        due = self._status_due_s
        if due is not None and time.monotonic() < due:
            return
        self._status_due_s = time.monotonic() + self._status_every_s
        self._status(
            "listening",
            runtime=self._runtime_name,
            position_s=round(message.position_s, 3),
            latency_ms=round(1000 * message.latency_samples / self._rate_hz, 1),
            compute_ms=round(message.compute_ms, 2),
            real_time_factor=round(message.real_time_factor, 5),
            lost_samples=message.lost_samples,
        )

    def _finished(self, message: Finished) -> None:
        summary = message.summary
        self._status(
            "stopped",
            runtime=self._runtime_name,
            position_s=round(summary.heard_s, 3),
            cries=len(summary.events),
            lost_samples=summary.lost_samples,
            **({"error": str(summary.error)} if summary.error else {}),
        )

    def _lost(self, message: AudioLost) -> None:
        self._write(
            encode_line(
                lost_audio_fields(
                    source=self._source.name,
                    model=self._model_id,
                    at=datetime.now().astimezone(),
                    lost_s=message.lost_samples / self._rate_hz,
                    total_lost_s=message.total_samples / self._rate_hz,
                )
            )
        )

    def _status(self, state: str, **more: Any) -> None:
        at = datetime.now().astimezone()
        self._write(
            encode_line(
                status_fields(state, source=self._source.name, model=self._model_id, at=at, **more)
            )
        )

    def _write(self, line: bytes) -> None:
        self._out.write(line)
        self._out.flush()
