"""Nights on the local clock, the two odd ones a year included.

A night runs from noon to noon and is called by the day of its evening: whatever the hour, every cry
belongs to exactly one night. Inside, moments are instants; only what is shown is local.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from crykit.errors import UsageError

LONGEST_DAYS = 7
"""A timeline by the hour of more than a week is no longer read by anybody."""

FIRST_YEAR, LAST_YEAR = 2000, 2100


@dataclass(frozen=True)
class Period:
    """From `begin` up to `end`, both aware; `night` if it is one, else what a user chose."""

    begin: datetime
    end: datetime
    night: date | None = None

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()

    @property
    def clock_changes(self) -> bool:
        """Whether the local clock is put forward or back inside."""
        return local(self.begin).utcoffset() != local(self.end).utcoffset()

    def whole_hours(self) -> Iterator[datetime]:
        """Every whole hour inside, local; in autumn one of them comes twice."""
        begin = local(self.begin)
        moment = begin.replace(minute=0, second=0, microsecond=0)
        while moment < self.begin:
            moment += timedelta(hours=1)
        while moment <= self.end:
            yield local(moment)
            moment += timedelta(hours=1)


def local(moment: datetime) -> datetime:
    """The same instant on this machine's clock."""
    return moment.astimezone(UTC).astimezone()


def night_of(day: date) -> Period:
    """The night that begins on the evening of `day`. Raises `UsageError` for an absurd year."""
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise UsageError(
            f"no night of the year {day.year}: expected {FIRST_YEAR} to {LAST_YEAR}, such as "
            "2026-11-20"
        )
    begin, end = (datetime.combine(d, time(12)).astimezone() for d in (day, _next(day)))
    return Period(begin, end, day)


def night_at(moment: datetime) -> date:
    """The night that an instant belongs to."""
    here = local(moment)
    return here.date() if here.hour >= 12 else here.date() - timedelta(days=1)


def last_night(now: datetime) -> date:
    """The night that began yesterday evening, which may still be going on."""
    return local(now).date() - timedelta(days=1)


def nights_before(night: date, count: int) -> list[date]:
    """The `count` nights that end with `night`, oldest first."""
    return [night - timedelta(days=back) for back in reversed(range(count))]


def chosen_period(begin: datetime | None, end: datetime | None, now: datetime) -> Period:
    """What --from and --to mean: to now if there is no end, a day before the end if no beginning.

    Raises `UsageError` if that is empty or longer than `LONGEST_DAYS`.
    """
    until = end or max(now, begin or now)
    since = begin or until - timedelta(days=1)
    if not since < until:
        raise UsageError(f"--from {since:%Y-%m-%dT%H:%M} is not before --to {until:%Y-%m-%dT%H:%M}")
    if until - since > timedelta(days=LONGEST_DAYS, hours=1):
        raise UsageError(
            f"--from and --to are {(until - since).days} days apart; a report takes "
            f"{LONGEST_DAYS} at most, its trends show a month"
        )
    for edge in (since, until):
        night_of(local(edge).date())  # of a year that can be
    return Period(since, until)


def _next(day: date) -> date:
    return day + timedelta(days=1)
