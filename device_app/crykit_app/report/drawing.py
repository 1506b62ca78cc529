"""The report's pictures as SVG, drawn by hand: no script, no font, nothing to fetch.

Nothing rests on colour alone. A cry is a tall bar, taller when louder; time that was listened to is
a low band; a gap is hatched; lost audio is a mark above. Colours are classes of the page's style
sheet, so that paper gets its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

from crykit_app.report.facts import Cry, Night
from crykit_app.report.period import Period
from crykit_app.report.spans import Span, clip
from crykit_app.report.trends import NightSum
from crykit_app.report.words import DAYS, MONTHS, clock, length, level

MARGIN = 20.0
ROW_HEIGHT = 80.0
BASE_Y = 56.0
BAND_HEIGHT = 9.0
LOUD_HEIGHT = 36.0
SOFT_HEIGHT = 17.0

LOUD_DBFS, SOFT_DBFS = -15.0, -60.0
"""The levels at which a bar is as tall, and as short, as it gets."""

THINNEST = 2.0
"""A cry of a second must be seen."""

LABEL_WIDTH = 46.0
BAR_CHART_HEIGHT = 132.0


@dataclass(frozen=True)
class _Row:
    """One strip of the timeline: `span` over `width` at `top`."""

    span: Span
    hours: float
    width: float
    top: float

    def x(self, moment: datetime) -> float:
        return MARGIN + (moment - self.span.begin).total_seconds() * self.scale

    @property
    def scale(self) -> float:
        """Pixels a second."""
        return (self.width - 2 * MARGIN) / (3600 * self.hours)


def timeline(night: Night, *, name: str, width: float, hours: float) -> str:
    """The night in rows of so many `hours`; `name` tells several drawings on a page apart."""
    shown = night.shown
    hours = min(hours, max(1.0, shown.seconds / 3600))
    rows: list[_Row] = []
    begin = shown.begin
    while begin < shown.end:
        end = min(begin + timedelta(hours=hours), shown.end)
        rows.append(_Row(Span(begin, end), hours, width, len(rows) * ROW_HEIGHT))
        begin = end
    hatch = f"hatch-{name}"
    body = "".join(_row(row, night, hatch) for row in rows)
    text = f"Timeline from {clock(shown.begin)} to {clock(shown.end)}"
    return _svg(f"timeline {name}", width, len(rows) * ROW_HEIGHT, text, _pattern(hatch) + body)


def _row(row: _Row, night: Night, hatch: str) -> str:
    begin, end = row.span.begin, row.span.end
    parts = [_hours(row, night.period)]
    for span in clip(night.listening, begin, end):
        parts.append(_rect(row, span, "heard", BAND_HEIGHT))
    for span in clip((gap.span for gap in night.gaps), begin, end):
        parts.append(_rect(row, span, "gap", LOUD_HEIGHT, fill=f"url(#{hatch})"))
    if night.longest_quiet is not None and night.cries:
        parts += [_quiet(row, part) for part in clip([night.longest_quiet], begin, end)]
    parts.append(_cries(row, [c for c in night.cries if c.begin < end and c.span.end >= begin]))
    for at, lost_s in night.lost:
        if begin <= at < end:
            parts.append(_lost_mark(row.x(at), row.top, f"{length(lost_s)} lost at {clock(at)}"))
    return "".join(parts)


def _hours(row: _Row, period: Period) -> str:
    """Ticks at whole hours of the local clock, labelled as far apart as there is room."""
    every = next(
        (n for n in (1, 2, 3, 6, 12, 24) if n * 3600 * row.scale >= LABEL_WIDTH),
        24,
    )
    y = row.top + BASE_Y
    parts = [f'<line class="base" x1="{MARGIN}" x2="{row.x(row.span.end):.1f}" y1="{y}" y2="{y}"/>']
    for hour in period.whole_hours():
        if not row.span.begin <= hour <= row.span.end:
            continue
        x = row.x(hour)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
        if hour.hour % every == 0:
            kind = "hour midnight" if hour.hour == 0 else "hour"
            label = DAYS[hour.weekday()][:3] if hour.hour == 0 and every >= 24 else f"{hour:%H:%M}"
            parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y + 17}">{label}</text>')
    return "".join(parts)


def _cries(row: _Row, cries: list[Cry]) -> str:
    """Bars; those that would overlap on the screen are one, as tall as the tallest."""
    bars: list[tuple[float, float, float, list[Cry]]] = []
    for cry in cries:
        begin = max(cry.begin, row.span.begin)
        left = row.x(begin)
        right = max(row.x(min(cry.span.end, row.span.end)), left + THINNEST)
        tall = _height(cry.level_dbfs)
        if bars and left < bars[-1][1] + 0.5:
            before = bars[-1]
            bars[-1] = (before[0], max(right, before[1]), max(tall, before[2]), [*before[3], cry])
        else:
            bars.append((left, right, tall, [cry]))
    y = row.top + BASE_Y
    return "".join(
        f'<rect class="cry" x="{left:.1f}" y="{y - tall:.1f}" width="{right - left:.1f}" '
        f'height="{tall:.1f}"><title>{escape(_tell(held))}</title></rect>'
        for left, right, tall, held in bars
    )


def _tell(cries: list[Cry]) -> str:
    first = cries[0]
    if len(cries) > 1:
        return f"{len(cries)} cries from {clock(first.begin)}"
    lasted = f", {length(first.span.seconds)}" if first.end or first.goes_on else ", end not known"
    return f"{clock(first.begin)}{lasted}, {level(first.level_dbfs)}"


def _height(dbfs: float | None) -> float:
    if dbfs is None:
        return SOFT_HEIGHT
    share = min(1.0, max(0.0, (dbfs - SOFT_DBFS) / (LOUD_DBFS - SOFT_DBFS)))
    return SOFT_HEIGHT + share * (LOUD_HEIGHT - SOFT_HEIGHT)


def _quiet(row: _Row, span: Span) -> str:
    """A line over the longest quiet stretch, named where there is room for the name."""
    left, right, y = row.x(span.begin), row.x(span.end), row.top + BASE_Y - 22
    line = f'<path class="quiet" d="M{left:.1f} {y + 4}v-4H{right:.1f}v4"/>'
    if right - left < 2 * LABEL_WIDTH:
        return line
    return line + _text((left + right) / 2, y - 5, "hour", "longest quiet")


def _rect(row: _Row, span: Span, kind: str, height: float, fill: str = "") -> str:
    left, right = row.x(span.begin), row.x(span.end)
    style = f' fill="{fill}"' if fill else ""
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{row.top + BASE_Y - height:.1f}" '
        f'width="{max(right - left, 1.0):.1f}" height="{height}"{style}/>'
    )


def _lost_mark(x: float, top: float, text: str) -> str:
    y = top + 8
    return f'<path class="lost" d="M{x - 4:.1f} {y}h8l-4 6z"><title>{escape(text)}</title></path>'


def bars(
    nights: list[NightSum], values_s: list[float], *, name: str, width: float, text: str
) -> str:
    """A bar a night, with its length written over it where there is room."""
    hatch = f"hatch-{name}"
    slot = (width - 2) / len(nights)
    room = BAR_CHART_HEIGHT - 44
    most = max([*values_s, 60.0])
    base = BAR_CHART_HEIGHT - 22
    parts = [_pattern(hatch)]
    tallest = max(range(len(nights)), key=lambda index: values_s[index])
    for index, (night, value) in enumerate(zip(nights, values_s, strict=True)):
        x = 1 + index * slot
        wide = slot * 0.72
        left = x + (slot - wide) / 2
        if not night.counts:
            parts.append(
                f'<rect class="gap" x="{left:.1f}" y="{base - room}" width="{wide:.1f}" '
                f'height="{room}" fill="url(#{hatch})"/>'
            )
        tall = room * value / most
        last = " now" if index == len(nights) - 1 else ""
        if value > 0:
            parts.append(
                f'<rect class="bar{last}" x="{left:.1f}" y="{base - tall:.1f}" '
                f'width="{wide:.1f}" height="{max(tall, 1):.1f}"/>'
            )
        middle = x + slot / 2
        if slot >= LABEL_WIDTH - 4 or (index == tallest and value > 0):
            shown = brief(value) if night.counts or value > 0 else "-"
            parts.append(_text(_kept_inside(middle, width), base - tall - 5, f"value{last}", shown))
        label = _bar_label(night, index, len(nights), slot)
        if label:
            parts.append(_text(_kept_inside(middle, width), base + 15, f"hour{last}", label))
    parts.append(f'<line class="base" x1="1" x2="{width - 1}" y1="{base}" y2="{base}"/>')
    return _svg(f"bars {name}", width, BAR_CHART_HEIGHT, text, "".join(parts))


def _bar_label(night: NightSum, index: int, count: int, slot: float) -> str:
    if slot >= 24:
        return f"{DAYS[night.night.weekday()][:2]} {night.night.day}"
    # Every seventh, counted from the newest.
    return (
        f"{night.night.day} {MONTHS[night.night.month - 1][:3]}"
        if (count - 1 - index) % 7 == 0
        else ""
    )


def _kept_inside(x: float, width: float) -> float:
    return min(max(x, 24.0), width - 24.0)


def brief(seconds: float) -> str:
    """`40 s`, `23 min`, `1 h 10`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds else "0"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02}" if hours else f"{minutes} min"


def swatch(kind: str) -> str:
    """A sample of what the timeline draws, for the legend."""
    hatch = f"hatch-{kind}"
    drawn = {
        "cry": '<rect class="cry" x="9" y="1" width="6" height="14"/>',
        "heard": '<rect class="heard" x="1" y="9" width="22" height="6"/>',
        "gap": _pattern(hatch)
        + f'<rect class="gap" x="1" y="1" width="22" height="14" fill="url(#{hatch})"/>',
        "lost": _lost_mark(12, -3, ""),
    }[kind]
    return f'<svg class="swatch" viewBox="0 0 24 16" aria-hidden="true">{drawn}</svg>'


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _pattern(ident: str) -> str:
    return (
        f'<defs><pattern id="{ident}" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect class="hatch-ground" width="6" height="6"/>'
        '<line class="hatch-line" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
    )


def _svg(kind: str, width: float, height: float, text: str, body: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(text)}">{body}</svg>'
    )
