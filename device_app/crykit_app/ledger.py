"""What one session leaves in the event log, whatever happens to the log meanwhile.

What the log does not take is kept in memory, told once, and written when it takes it again. A log
that is found damaged, or that somebody moved away, is replaced by a new one. Listening never waits
for it longer than the ring can hold the sound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ulid import ULID

from crykit_app.faults import StoreError
from crykit_app.messages import CryBegan, CryEnded, Message, StoreRecovered, StoreTrouble
from crykit_app.sources import Source, wall_clock
from crykit_app.store import OPENING_PATIENCE_S, WRITING_PATIENCE_S, EventStore
from crykit_app.stretches import SIGN_OF_LIFE_S, WALL_CLOCK_KINDS, Stretch, Stretches

RETRY_S = 5.0
RETRY_PATIENCE_S = 0.1
REPLACE_EVERY_S = 60.0
"""A disk that spoils every new log must not fill up with spoilt ones."""

MAX_WAITING = 10_000

Write = Callable[[EventStore], None]


@dataclass
class _Loss:
    """Sound lost within a minute is one row."""

    position_s: float
    at: datetime | None
    lost_s: float
    total_samples: int
    written: bool = False


class Ledger:
    """The session of `source` in `store`; call everything from one thread.

    `tell` gets `StoreTrouble` and `StoreRecovered`; `now` is the wall clock.
    """

    def __init__(
        self,
        store: EventStore,
        source: Source,
        model_id: str,
        tell: Callable[[Message], None],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._source = source
        self._model_id = model_id
        self._tell = tell
        self._now = now
        self._id = str(ULID())
        # In the order in which they are to be written; the same key again takes the newest.
        self._waiting: dict[str, Write] = {}
        # What a new log would need of this session: itself, its stretch, the cry that goes on.
        self._lasting: dict[str, Write] = {}
        self._stretches = Stretches(source.started_at or now())
        self._loss: _Loss | None = None
        self._sign_due_s = 0.0
        self._retry_at_s = 0.0
        self._replaced_at_s = -REPLACE_EVERY_S
        self._must_reopen = False
        self._trouble = ""
        self._dropped = 0

    def begin(self) -> None:
        """Note that listening starts."""
        if self._store.set_aside is not None:
            self._tell(StoreTrouble(self._set_aside_text(), state="log_set_aside"))
        began = self._now()
        source, kind = self._source.name, self._source.kind
        self._keep(
            "session",
            lambda store: store.begin_session(self._id, source, self._model_id, began, kind),
            lasting=True,
        )

    def cry_began(self, message: CryBegan) -> None:
        """Log a cry that has begun."""
        event_id = message.event.id
        self._keep(f"opened {event_id}", self._opening(message), lasting=True)

    def cry_ended(self, message: CryEnded) -> None:
        """Complete it."""
        event = message.event
        # A new log may have taken the place of that in which it began.
        opening = self._opening(message)

        def write(store: EventStore) -> None:
            opening(store)
            store.close_event(
                event.id,
                onset_s=event.onset_s,
                offset_s=event.offset_s,
                peak_probability=event.peak_probability,
                mean_probability=event.mean_probability,
                level_dbfs=event.level_dbfs,
            )

        self._lasting.pop(f"opened {event.id}", None)
        self._keep(f"closed {event.id}", write)

    def heard(self, position_s: float) -> None:
        """Sound up to `position_s` of the source was scored; call about once a second."""
        now = self._wall(position_s)
        if now is not None:
            over = self._stretches.heard(now, position_s)
            if over is not None:
                self._keep_stretch(over)
                self._sign_due_s = 0.0
        if time.monotonic() >= self._sign_due_s:
            self._sign_due_s = time.monotonic() + SIGN_OF_LIFE_S
            self._sign_of_life()
        elif self._waiting and time.monotonic() >= self._retry_at_s:
            self._write_waiting()

    def lost(self, position_s: float, lost_s: float, total_samples: int) -> None:
        """`lost_s` of sound is missing at `position_s`; `total_samples` so far."""
        loss = self._loss
        if loss is not None and position_s - loss.position_s < SIGN_OF_LIFE_S:
            loss.lost_s += lost_s
            loss.total_samples = total_samples
            loss.written = False
            return
        self._keep_loss()
        self._loss = _Loss(position_s, self._wall(position_s), lost_s, total_samples)
        self._keep_loss()

    def end(self) -> None:
        """Note the end, write what still waits, and close the log."""
        self._sign_of_life()
        ended = self._now()
        self._keep("ended", lambda store: store.end_session(self._id, ended))
        if self._waiting:
            self._write_waiting(OPENING_PATIENCE_S)
        if self._waiting:
            events = (key for key in self._waiting if key.startswith(("opened ", "closed ")))
            cries = {key.split()[1] for key in events}
            many = f"{len(cries)} {'cry is' if len(cries) == 1 else 'cries are'} not kept"
            self._tell(StoreTrouble(f"{self._trouble}; {many}"))
        self._store.close()

    def _opening(self, message: CryBegan | CryEnded) -> Write:
        event_id, onset_s, start = message.event.id, message.event.onset_s, message.start
        logged = self._now()
        return lambda store: store.open_event(self._id, event_id, onset_s, start, logged)

    def _sign_of_life(self) -> None:
        if self._stretches.current is not None:
            self._keep_stretch(self._stretches.current, lasting=True)
        self._keep_loss()

    def _keep_stretch(self, stretch: Stretch, *, lasting: bool = False) -> None:
        began, until = stretch.began, stretch.until
        key = f"stretch {began.isoformat()}"
        if lasting:
            for old in [k for k in self._lasting if k.startswith("stretch ")]:
                del self._lasting[old]
        self._keep(key, lambda store: store.listened(self._id, began, until), lasting=lasting)

    def _keep_loss(self) -> None:
        if self._loss is None or self._loss.written:
            return
        self._loss.written = True
        position_s, at = self._loss.position_s, self._loss.at
        lost_s, total = self._loss.lost_s, self._loss.total_samples

        def write(store: EventStore) -> None:
            store.lost(self._id, position_s, at, lost_s)
            store.count_lost(self._id, total)

        self._keep(f"loss {position_s}", write)

    def _wall(self, position_s: float) -> datetime | None:
        """The wall clock at `position_s`; of a recording, when it was made, if that is known."""
        if self._source.kind in WALL_CLOCK_KINDS:
            return self._now()
        return wall_clock(self._source, position_s)

    def _keep(self, key: str, write: Write, *, lasting: bool = False) -> None:
        if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            self._write_waiting()
            if self._waiting:
                self._dropped += 1
                return
        self._waiting[key] = write
        if lasting:
            self._lasting[key] = write
        self._write_waiting()

    def _write_waiting(self, patience_s: float | None = None) -> None:
        """Write in order until one fails."""
        try:
            if self._must_reopen:
                self._replace()
            if patience_s is not None:
                self._store.be_patient(patience_s)
            while self._waiting:
                key = next(iter(self._waiting))
                try:
                    self._waiting[key](self._store)
                except StoreError as error:
                    if not error.replaced:
                        raise
                    self._must_reopen = True
                    self._replace(error)
                    continue
                del self._waiting[key]
        except StoreError as error:
            self._fail(error)
        else:
            self._recover()

    def _replace(self, because: StoreError | None = None) -> None:
        """Open a new log in place of this one; what lasts is written to it again."""
        if time.monotonic() - self._replaced_at_s < REPLACE_EVERY_S:
            raise because or StoreError(self._trouble)
        self._store.reopen()
        self._must_reopen = False
        self._replaced_at_s = time.monotonic()
        self._waiting = {**self._lasting, **self._waiting}
        text = self._set_aside_text() if self._store.set_aside else f"{because}; a new one is begun"
        self._tell(StoreTrouble(text, state="log_set_aside"))

    def _set_aside_text(self) -> str:
        return (
            f"the event log {self._store.path} was damaged; it is set aside as "
            f"{self._store.set_aside}, and a new one is begun"
        )

    def _fail(self, error: StoreError) -> None:
        self._retry_at_s = time.monotonic() + RETRY_S
        if not self._must_reopen:
            self._store.be_patient(RETRY_PATIENCE_S)
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._tell(StoreTrouble(f"{error}; events are still reported, and kept in memory"))

    def _recover(self) -> None:
        if not self._trouble:
            return
        self._trouble = ""
        self._store.be_patient(WRITING_PATIENCE_S)
        kept = "nothing is missing"
        if self._dropped:
            kept = f"{self._dropped} writes were too many to keep and are missing"
        self._dropped = 0
        self._tell(StoreRecovered(f"the event log {self._store.path} is written again; {kept}"))
