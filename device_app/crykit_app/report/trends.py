"""How this night compares with the week and the month before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from crykit_app.report.chronicle import Chronicle
from crykit_app.report.period import night_of, nights_before

MONTH = 30
WEEK = 7

ENOUGH_S = 4 * 3600.0
"""A night that was listened to for less says too little to be averaged with others."""

ENOUGH_NIGHTS = 3


@dataclass(frozen=True, slots=True)
class NightSum:
    """One bar of a trend."""

    night: date
    cries: int
    bouts: int
    crying_s: float
    longest_quiet_s: float
    listened_s: float

    @property
    def counts(self) -> bool:
        """Whether it was listened to for long enough to be compared."""
        return self.listened_s >= ENOUGH_S


@dataclass(frozen=True, slots=True)
class WeekChange:
    """Crying a night on average, this week and the week before."""

    this_s: float
    this_nights: int
    before_s: float
    before_nights: int


def month_to(chronicle: Chronicle, night: date) -> list[NightSum]:
    """The `MONTH` nights that end with `night`, oldest first."""
    return [_sum(chronicle, each) for each in nights_before(night, MONTH)]


def week_change(month: list[NightSum]) -> WeekChange | None:
    """None where either week has fewer than `ENOUGH_NIGHTS` nights that count."""
    this = [each.crying_s for each in month[-WEEK:] if each.counts]
    before = [each.crying_s for each in month[-2 * WEEK : -WEEK] if each.counts]
    if min(len(this), len(before)) < ENOUGH_NIGHTS:
        return None
    return WeekChange(sum(this) / len(this), len(this), sum(before) / len(before), len(before))


def _sum(chronicle: Chronicle, night: date) -> NightSum:
    facts = chronicle.night(night_of(night))
    quiet = facts.longest_quiet
    return NightSum(
        night,
        len(facts.cries),
        len(facts.bouts),
        facts.crying_s,
        quiet.seconds if quiet else 0.0,
        facts.listened_s,
    )
