"""From the event log to nights: what happened when, and when nothing listened.

The log is believed only as far as it goes: a cry without an end has no length, a listener that
broke off listened to its last sign of life, and a clock that was set is noticed.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from crykit_app.logbook import Listening, Logbook, Session, StoredEvent
from crykit_app.report.facts import Bout, Cry, Gap, Night
from crykit_app.report.period import Period, local
from crykit_app.report.spans import Span, clip, joined, total_s, without
from crykit_app.stretches import SIGN_OF_LIFE_S, TOLERANCE_S, WALL_CLOCK_KINDS

BOUT_GAP_S = 300.0
"""Cries at most this far apart are one bout of trouble. Day diaries of infant crying, too, count in
steps of five minutes (Barr et al. 1988, Arch. Dis. Child. 63)."""

CLOCK_SET_S = 120.0
"""Further than this from when it was logged, a live event's start is of a clock set since."""

RUNNING_S = 2.5 * SIGN_OF_LIFE_S
MORNING_HOUR = 8


class Chronicle:
    """A logbook on the wall clock; `night` cuts a period out of it."""

    def __init__(self, book: Logbook, now: datetime) -> None:
        self._book = book
        self._now = now
        self._last: dict[str, datetime] = {}
        for stretch in book.listening:
            last = self._last.get(stretch.session_id, stretch.until)
            self._last[stretch.session_id] = max(last, stretch.until)
        placed = [self._cry(event) for event in book.events]
        self._cries = sorted((cry for cry in placed if cry), key=lambda cry: cry.begin)
        self._unplaced = [
            event.logged for event, cry in zip(book.events, placed, strict=True) if cry is None
        ]

    def night(self, period: Period) -> Night:
        """Everything that touches `period`."""
        begin, end = period.begin, min(period.end, max(self._now, period.begin))
        cries = [
            cry
            for cry in self._cries
            if cry.begin < period.end and (cry.begin >= begin or cry.span.end > begin)
        ]
        stretches = [s for s in self._book.listening if s.began < period.end and s.until > begin]
        heard = [Span(s.began, self._until(s)) for s in stretches] + [c.span for c in cries]
        listening = joined(clip(heard, begin, end), TOLERANCE_S)
        sessions = {s.session_id for s in stretches}
        sessions |= {cry.session_id for cry in cries}
        known = [self._book.sessions[ident] for ident in sorted(sessions)]
        return Night(
            period=period,
            now=self._now,
            cries=cries,
            bouts=self._bouts(cries, period),
            listening=listening,
            gaps=self._gaps(listening, stretches, period),
            lost=sorted(
                (loss.at, loss.lost_s)
                for loss in self._book.lost
                if loss.at is not None and begin <= loss.at < period.end
            ),
            lost_somewhere_s=sum(
                loss.lost_s
                for loss in self._book.lost
                if loss.at is None and loss.session_id in sessions
            ),
            clock_set_back=_set_back(stretches),
            still_listening=any(self._runs(s) for s in stretches) and self._now <= period.end,
            models=sorted({session.model for session in known}),
            sources=sorted({session.source for session in known}),
            unplaced=sum(begin <= logged < period.end for logged in self._unplaced),
        )

    def _cry(self, event: StoredEvent) -> Cry | None:
        begin = _happened(event)
        if begin is None:
            return None
        end = None
        at_most = begin
        goes_on = False
        if event.offset_s is not None:
            end = at_most = begin + timedelta(seconds=max(0.0, event.offset_s - event.onset_s))
        else:
            session = self._book.sessions[event.session_id]
            last = self._last.get(session.id)
            goes_on = session.ended is None and last is not None and self._lives(last)
            at_most = self._now if goes_on else max(begin, last or begin)
        return Cry(
            event.id,
            event.session_id,
            begin,
            end,
            max(begin, at_most),
            goes_on,
            event.peak_probability,
            event.mean_probability,
            event.level_dbfs,
            event.source,
            event.model,
        )

    def _bouts(self, cries: list[Cry], period: Period) -> list[Bout]:
        spans = joined((cry.span for cry in cries), BOUT_GAP_S)
        bouts: list[Bout] = []
        at = 0
        for span in spans:
            part: list[Cry] = []
            while at < len(cries) and cries[at].begin <= span.end:
                part.append(cries[at])
                at += 1
            inside = joined(clip((c.span for c in part), period.begin, period.end))
            levels = [cry.level_dbfs for cry in part if cry.level_dbfs is not None]
            whole = Span(max(span.begin, period.begin), min(span.end, period.end))
            known = all(cry.end is not None or cry.goes_on for cry in part)
            bouts.append(Bout(whole, len(part), total_s(inside), max(levels, default=None), known))
        return bouts

    def _gaps(self, listening: list[Span], stretches: list[Listening], period: Period) -> list[Gap]:
        """Between what was listened to; before and after it only where somebody expected more."""
        until = min(period.end, max(self._now, period.begin))
        if period.night is None:
            hull = Span(period.begin, until)
        elif listening:
            hull = Span(
                listening[0].begin, self._expected_end(listening[-1].end, stretches, period, until)
            )
        else:
            return []
        holes = without([hull] if hull.seconds > 0 else [], listening)
        return [Gap(hole, self._why(hole, stretches)) for hole in holes]

    def _expected_end(
        self, end: datetime, stretches: list[Listening], period: Period, until: datetime
    ) -> datetime:
        """A listener that broke off and never came back is missed until the morning."""
        last = max(stretches, key=lambda s: s.until, default=None)
        if last is None or self._runs(last) or self._session(last).ended is not None:
            return end
        last_day = local(period.end).date()
        morning = datetime.combine(last_day, time(MORNING_HOUR)).astimezone()
        return max(end, min(morning, until))

    def _why(self, hole: Span, stretches: list[Listening]) -> str:
        slack = timedelta(seconds=TOLERANCE_S)
        before = [s for s in stretches if s.until <= hole.begin + slack]
        after = [s for s in stretches if s.began >= hole.end - slack]
        if not before:
            return "not started yet"
        last = max(before, key=lambda s: s.until)
        first = min(after, key=lambda s: s.began, default=None)
        if first is not None and first.session_id == last.session_id:
            return "no sound came in: the machine slept, its clock was set, or the input stalled"
        if self._session(last).ended is not None:
            return "it was stopped"
        return "it broke off: a power cut, a crash, or it was killed"

    def _session(self, stretch: Listening) -> Session:
        return self._book.sessions[stretch.session_id]

    def _until(self, stretch: Listening) -> datetime:
        return max(stretch.until, self._now) if self._runs(stretch) else stretch.until

    def _runs(self, stretch: Listening) -> bool:
        """Whether it goes on now: its end is written about once a minute."""
        session = self._session(stretch)
        newest = self._last[stretch.session_id] == stretch.until
        live = session.kind in WALL_CLOCK_KINDS
        return live and session.ended is None and newest and self._lives(stretch.until)

    def _lives(self, last: datetime) -> bool:
        return -TOLERANCE_S <= (self._now - last).total_seconds() < RUNNING_S


def _happened(event: StoredEvent) -> datetime | None:
    """When a cry began; None for a recording of which nobody knows when it was made."""
    live = event.kind in WALL_CLOCK_KINDS
    if event.start is None:
        return event.logged if live or event.kind is None else None
    off_s = abs((event.logged - event.start).total_seconds())
    return event.logged if live and off_s > CLOCK_SET_S else event.start


def _set_back(stretches: list[Listening]) -> bool:
    """Whether one session lived through the same hour twice."""
    newest: dict[str, datetime] = {}
    for stretch in stretches:
        before = newest.get(stretch.session_id)
        if before is not None and stretch.began < before - timedelta(seconds=TOLERANCE_S):
            return True
        newest[stretch.session_id] = max(stretch.until, before or stretch.until)
    return False
