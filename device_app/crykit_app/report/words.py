"""Times and numbers as a tired reader takes them in."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from crykit_app.report.facts import Bout, Night
from crykit_app.report.period import local
from crykit_app.report.spans import Span
from crykit_app.report.trends import WeekChange

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

NO_DEVICE = (
    "This is not a medical device. It can miss cries and take other sounds for one: it does not "
    "replace looking after your baby."
)
NO_REASON = "It does not know why a baby cries, and does not guess."


def length(seconds: float) -> str:
    """`45 s`, `23 min`, `4 h 10 min`; under ten minutes with the seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def clock(moment: datetime, *, zone: bool = False) -> str:
    """`03:12`; with `zone`, `03:12 CET`, for a night in which an hour comes twice."""
    here = local(moment)
    return f"{here:%H:%M %Z}" if zone else f"{here:%H:%M}"


def stretch(span: Span, *, zone: bool = False) -> str:
    """`22:40-02:50`."""
    return f"{clock(span.begin, zone=zone)} to {clock(span.end, zone=zone)}"


def day(when: date) -> str:
    """`Friday 20 November`."""
    return f"{DAYS[when.weekday()]} {when.day} {MONTHS[when.month - 1]}"


def title(night: Night) -> str:
    """What the report is about."""
    evening = night.period.night
    if evening is None:
        begin, end = local(night.period.begin), local(night.period.end)
        return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    morning = evening + timedelta(days=1)
    if evening.month == morning.month:
        first = f"{DAYS[evening.weekday()]} {evening.day}"
    else:
        first = day(evening)
    return f"Night of {first} to {day(morning)} {morning.year}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 cry`, `5 cries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}".replace(",", " ")


def headline(night: Night) -> str:
    """The night in one or two sentences."""
    if not night.listening:
        return "Nothing listened. That no cry is shown here says nothing about the night."
    if not night.cries:
        words = f"No cry was heard in {length(night.listened_s)} of listening."
    else:
        at_least = "at least " if night.open_cries else ""
        words = (
            f"{counted(len(night.cries), 'cry', 'cries')} in "
            f"{counted(len(night.bouts), 'bout')}, {at_least}{length(night.crying_s)} of crying."
        )
    return words + " This night is not over: it goes on." if night.still_listening else words


def cautions(night: Night) -> list[str]:
    """What a reader must know before trusting the figures."""
    found: list[str] = []
    if night.gaps:
        found.append(
            f"For {length(night.not_listening_s)} nothing listened. What happened then is not "
            "known and not counted."
        )
    if night.lost_s > 0:
        much = length(night.lost_s) if night.lost_s >= 1 else "Less than a second"
        found.append(f"{much} of audio was lost before it could be heard.")
    if night.open_cries:
        what = counted(night.open_cries, "cry", "cries")
        found.append(
            f"The end of {what} was never written (the listener broke off); it counts as begun, "
            "with no length."
        )
    if night.clock_set_back:
        found.append(
            "The clock was set back while it listened: some times on this page came twice."
        )
    if night.unplaced:
        what = counted(night.unplaced, "cry", "cries")
        found.append(f"{what} of replayed recordings, made nobody knows when: left out.")
    if night.period.clock_changes and night.period.night is not None:
        hours = round(night.period.seconds / 3600)
        way = "back: one hour came twice" if hours > 24 else "forward: one hour was skipped"
        found.append(f"The clocks went {way}. Noon to noon, this night had {hours} hours.")
    return found


def bout_end(bout: Bout, *, zone: bool = False) -> str:
    """The end of a bout, or that nobody knows it."""
    return clock(bout.span.end, zone=zone) if bout.end_known else "not known"


def level(dbfs: float | None) -> str:
    """`-31 dBFS`."""
    return "-" if dbfs is None else f"{dbfs:.0f} dBFS"


def change(week: WeekChange) -> str:
    """This week against the last, without saying what it means."""
    return (
        f"Last seven nights: {length(week.this_s)} of crying a night on average (over "
        f"{counted(week.this_nights, 'night')}). The seven before: {length(week.before_s)} (over "
        f"{counted(week.before_nights, 'night')})."
    )
