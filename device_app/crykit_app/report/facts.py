"""What the event log knows of a night, counted so that nothing is claimed of unheard time.

Only time in which sound was scored counts as listened; quiet is listened time without a cry. Gaps
end a quiet stretch: nobody knows what was in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from statistics import median

from crykit_app.report.period import Period, local
from crykit_app.report.spans import Span, clip, joined, longest, total_s, without

LEAST_QUIET_S = 60.0
"""Shorter pauses are no quiet stretch."""

QUIET_LOSS_S = 10.0
"""Lost audio of at least so much ends a quiet stretch; a cry is seldom shorter."""


@dataclass(frozen=True, slots=True)
class Cry:
    """A cry on the wall clock; `end` is None where it was never written, `at_most` bounds it."""

    id: str
    session_id: str
    begin: datetime
    end: datetime | None
    at_most: datetime
    goes_on: bool
    peak_probability: float | None
    mean_probability: float | None
    level_dbfs: float | None
    source: str
    model: str

    @property
    def span(self) -> Span:
        """What is certain of it: nothing but its beginning, if its end was never written."""
        return Span(self.begin, self.at_most if self.goes_on else self.end or self.begin)


@dataclass(frozen=True, slots=True)
class Bout:
    """Cries that belong together."""

    span: Span
    cries: int
    crying_s: float
    loudest_dbfs: float | None
    end_known: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Nothing listened; `why` in words."""

    span: Span
    why: str


@dataclass(frozen=True)
class Night:
    """All of `period`; the lists are in order. `unplaced` events have no known time."""

    period: Period
    now: datetime
    cries: list[Cry]
    bouts: list[Bout]
    listening: list[Span]
    gaps: list[Gap]
    lost: list[tuple[datetime, float]]
    lost_somewhere_s: float
    clock_set_back: bool
    still_listening: bool
    models: list[str]
    sources: list[str]
    unplaced: int

    @cached_property
    def crying(self) -> list[Span]:
        """When it cried, each moment once."""
        return joined(self._inside([cry.span for cry in self.cries]))

    @property
    def crying_s(self) -> float:
        return total_s(self.crying)

    @property
    def listened_s(self) -> float:
        return total_s(self.listening)

    @property
    def not_listening_s(self) -> float:
        return total_s(gap.span for gap in self.gaps)

    @property
    def lost_s(self) -> float:
        return sum(lost_s for _, lost_s in self.lost) + self.lost_somewhere_s

    @property
    def open_cries(self) -> int:
        """Cries whose end was never written, and that do not go on."""
        return sum(cry.end is None and not cry.goes_on for cry in self.cries)

    @cached_property
    def longest_quiet(self) -> Span | None:
        """The longest stretch that was listened to without a cry; None if all are short."""
        taken = [Span(cry.begin, cry.end or cry.at_most) for cry in self.cries]
        # A moment is enough to tell two quiet stretches apart.
        taken = [Span(s.begin, max(s.end, s.begin + timedelta(seconds=1))) for s in taken]
        taken += [
            Span(at - timedelta(seconds=lost_s), at)
            for at, lost_s in self.lost
            if lost_s >= QUIET_LOSS_S
        ]
        found = longest(without(self.listening, taken))
        return found if found and found.seconds >= LEAST_QUIET_S else None

    @property
    def longest_bout(self) -> Bout | None:
        return max(self.bouts, key=lambda bout: bout.span.seconds, default=None)

    @property
    def loudest_dbfs(self) -> float | None:
        return max(self._levels, default=None)

    @property
    def median_dbfs(self) -> float | None:
        return median(self._levels) if self._levels else None

    @cached_property
    def shown(self) -> Span:
        """What a timeline shows: a chosen period whole, of a night the hours that hold anything."""
        if self.period.night is None:
            return Span(self.period.begin, self.period.end)
        held = [*self.listening, *(gap.span for gap in self.gaps)]
        if not held:
            return Span(self.period.begin, self.period.end)
        begin, end = (local(m) for m in (held[0].begin, max(span.end for span in held)))
        begin = begin.replace(minute=0, second=0, microsecond=0)
        end = (end + timedelta(minutes=59, seconds=59)).replace(minute=0, second=0, microsecond=0)
        return Span(max(begin, self.period.begin), min(end, self.period.end))

    @property
    def _levels(self) -> list[float]:
        return [cry.level_dbfs for cry in self.cries if cry.level_dbfs is not None]

    def _inside(self, spans: list[Span]) -> list[Span]:
        return clip(spans, self.period.begin, self.period.end)
