"""The engine thread: source -> `Listener.feed` -> messages -> event log and sinks.

It knows no widget. Whoever wants to hear of it gives a `publish` callable, which is called in the
engine thread and must return at once (a `Mailbox`, a writer of lines).
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from statistics import median

from crykit.bundle import Bundle
from crykit.errors import CrykitError
from crykit.events import CryEvent, CryStarted
from crykit.gate import EventGate, GateSettings
from crykit.listener import Listener
from crykit.runtime import Runtime
from crykit_app.ledger import Ledger
from crykit_app.messages import (
    AudioLost,
    CryBegan,
    CryEnded,
    Finished,
    Message,
    Progress,
    Summary,
)
from crykit_app.ring import Samples
from crykit_app.sources import Block, Source, wall_clock
from crykit_app.store import EventStore
from crykit_app.timeline import Timeline

_PROGRESS_EVERY_S = 1.0
_STEPS_TIMED = 64


def _now() -> datetime:
    return datetime.now().astimezone()


class Engine:
    """Listens to `source` until it ends or `stop`; then everything is flushed and stored.

    `source` must be open. `publish` gets every `Message`, `Finished` last. If `publish` raises
    (a closed pipe, a full disk) listening stops, what was heard is still stored, and the exception
    is in `failure`.
    """

    def __init__(
        self,
        source: Source,
        bundle: Bundle,
        runtime: Runtime,
        gate: GateSettings,
        publish: Callable[[Message], None],
        *,
        store: EventStore | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        manifest = bundle.manifest
        self._source = source
        self._publish = publish
        self._rate_hz = manifest.sample_rate_hz
        self._step_samples = runtime.step_samples
        # A step of another length changes what is waited for by just that.
        self._latency_samples = (
            manifest.latency_samples - manifest.step_samples + runtime.step_samples
        )
        self._listener = Listener(
            runtime,
            EventGate(gate, manifest.frame_samples, manifest.sample_rate_hz),
            sample_rate_hz=manifest.sample_rate_hz,
            step_samples=runtime.step_samples,
            on_frames=self._send,
        )
        self._timeline = Timeline(self._rate_hz)
        self._ledger = (
            None if store is None else Ledger(store, source, bundle.model_id, self._send, now)
        )
        self._stop = threading.Event()
        # Not a daemon: the interpreter waits for the flush even if the main thread is thrown out.
        self._thread = threading.Thread(target=self._run, name="crykit-engine")
        self._fed_samples = 0
        self._compute_s = 0.0
        self._step_ms: deque[float] = deque(maxlen=_STEPS_TIMED)
        self._progress_due_s = 0.0
        self._began: list[CryBegan] = []
        self._events: list[CryEnded] = []
        self.failure: Exception | None = None
        self.summary: Summary | None = None

    def start(self) -> None:
        """Begin listening in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; returns at once. Safe from a signal handler."""
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is flushed and stored; False if that took longer than asked."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._stop.is_set()

    def _run(self) -> None:
        error: CrykitError | None = None
        try:
            if self._ledger is not None:
                self._ledger.begin()
            try:
                for block in self._source.blocks(self._stop):
                    self._take(block)
            except CrykitError as caught:
                error = caught
            self._dispatch(self._listener.flush())
        except CrykitError as caught:
            error = error or caught
        except Exception as caught:
            self.failure = caught
        finally:
            self._finish(error)

    def _finish(self, error: CrykitError | None) -> None:
        self._source.close()
        if self._ledger is not None:
            self._ledger.heard(self._heard_s)
            self._ledger.end()
        self.summary = Summary(
            source=self._source.name,
            events=tuple(self._events),
            began=tuple(self._began),
            heard_s=self._heard_s,
            lost_samples=self._timeline.lost_samples,
            compute_s=self._compute_s,
            stopped_early=self._stop.is_set(),
            error=error,
        )
        self._send(Finished(self.summary))

    def _take(self, block: Block) -> None:
        if block.lost_samples:
            self._lose(block.lost_samples)
        # A step at a time: events and frames come out in order even from a large block.
        for start in range(0, len(block.samples), self._step_samples):
            self._feed(block.samples[start : start + self._step_samples])

    def _feed(self, samples: Samples) -> None:
        scored_before = self._listener.samples_scored
        began = time.perf_counter()
        heard = self._listener.feed(samples)
        took_s = time.perf_counter() - began
        self._fed_samples += len(samples)
        self._compute_s += took_s
        steps = (self._listener.samples_scored - scored_before) // self._step_samples
        if steps:
            self._step_ms.append(1000 * took_s / steps)
        self._dispatch(heard)
        if time.monotonic() >= self._progress_due_s:
            self._progress_due_s = time.monotonic() + _PROGRESS_EVERY_S
            self._send(self._progress())
            if self._ledger is not None:
                self._ledger.heard(self._heard_s)

    @property
    def _heard_s(self) -> float:
        """How much of the source is over, what was lost included."""
        return (self._fed_samples + self._timeline.lost_samples) / self._rate_hz

    def _progress(self) -> Progress:
        lost = self._timeline.lost_samples
        return Progress(
            position_s=self._heard_s,
            lost_samples=lost,
            latency_samples=self._latency_samples,
            compute_ms=median(self._step_ms) if self._step_ms else 0.0,
            real_time_factor=self._compute_s * self._rate_hz / max(1, self._fed_samples),
            behind_s=self._source.behind_s,
        )

    def _lose(self, lost_samples: int) -> None:
        at_s = self._heard_s
        self._timeline.lose(self._fed_samples, lost_samples)
        total = self._timeline.lost_samples
        if self._ledger is not None:
            self._ledger.lost(at_s, lost_samples / self._rate_hz, total)
        self._send(AudioLost(at_s, lost_samples, total))

    def _dispatch(self, heard: list[CryStarted | CryEvent]) -> None:
        for event in heard:
            onset_s = self._timeline.onset_s(event.onset_s)
            start = wall_clock(self._source, onset_s)
            if isinstance(event, CryStarted):
                self._cry_began(CryBegan(dataclasses.replace(event, onset_s=onset_s), start))
            else:
                offset_s = self._timeline.offset_s(event.offset_s)
                moved = dataclasses.replace(event, onset_s=onset_s, offset_s=offset_s)
                self._cry_ended(CryEnded(moved, start))

    def _cry_began(self, message: CryBegan) -> None:
        self._began.append(message)
        # Logged before it is told: what somebody has read is on the disk.
        if self._ledger is not None:
            self._ledger.cry_began(message)
        self._send(message)

    def _cry_ended(self, message: CryEnded) -> None:
        self._events.append(message)
        if self._ledger is not None:
            self._ledger.cry_ended(message)
        self._send(message)

    def _send(self, message: Message) -> None:
        if self.failure is not None:
            return
        try:
            self._publish(message)
        except Exception as error:
            # The reader is gone (a closed pipe, a full disk): end in good order, log the rest.
            self.failure = error
            self._stop.set()
