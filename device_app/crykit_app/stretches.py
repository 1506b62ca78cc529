"""When something listened, on the wall clock.

Sound that was scored moves the sample clock. Where the wall clock moves on and the sample clock
does not (the machine slept, a pipe stalled), or the wall clock is set, one stretch ends and another
begins: nothing is ever counted as heard because a program happened to be running.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

SIGN_OF_LIFE_S = 60.0
"""How often the end of a stretch is written: so much of it a power cut may hide; seldom enough for
a memory card."""

TOLERANCE_S = 5.0
"""What scheduling and buffers may put between the two clocks."""

DRIFT = 0.01
"""How much slower than the wall a sound card's clock may run, far more than any does; a source that
delivers less sound than that is starved."""

WALL_CLOCK_KINDS = ("microphone", "stdin")
"""Kinds of source that are heard as they happen; of all others only `start` tells the time."""


@dataclass(slots=True)
class Stretch:
    """From `began` to `until` sound was scored."""

    began: datetime
    until: datetime


class Stretches:
    """Takes pairs of wall clock and position; `current` is the stretch that goes on."""

    def __init__(self, not_before: datetime) -> None:
        self._not_before = not_before
        self._position_s = 0.0
        self._behind_s = 0.0
        self.current: Stretch | None = None

    def heard(self, now: datetime, position_s: float) -> Stretch | None:
        """Sound up to `position_s` was scored by `now`; returns a stretch that is over."""
        moved_s = position_s - self._position_s
        self._position_s = position_s
        last = self.current
        if last is None:
            began = max(self._not_before, now - timedelta(seconds=moved_s))
            self.current = Stretch(began, now)
            return None
        wall_s = (now - last.until).total_seconds()
        behind_s = max(0.0, self._behind_s + (1 - DRIFT) * wall_s - moved_s)
        if wall_s >= -TOLERANCE_S and behind_s <= TOLERANCE_S:
            last.until = max(last.until, now)
            self._behind_s = behind_s
            return None
        # What had fallen behind before was not heard either.
        last.until = max(last.began, last.until - timedelta(seconds=self._behind_s))
        self.current = Stretch(now - timedelta(seconds=min(moved_s, abs(wall_s))), now)
        self._behind_s = 0.0
        return last
