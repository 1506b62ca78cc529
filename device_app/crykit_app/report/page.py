"""The report as one HTML file that needs nothing else: no script, no request, no font."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from crykit import __version__
from crykit_app.report import words
from crykit_app.report.chronicle import BOUT_GAP_S
from crykit_app.report.drawing import bars, swatch, timeline
from crykit_app.report.facts import Bout, Night
from crykit_app.report.period import local
from crykit_app.report.trends import WEEK, NightSum, week_change

ROWS_AT_FIRST = 30
LOSSES_LISTED = 20

# The page itself forbids every request: nothing of a night leaves the file.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="crykit {version}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
"""


def as_html(night: Night, month: list[NightSum]) -> bytes:
    """The whole page, UTF-8."""
    zone = night.period.clock_changes
    parts = [
        _HEAD.format(version=__version__, title=escape(words.title(night)), style=_style()),
        f"<h1>{escape(words.title(night))}</h1>",
        f'<p class="headline">{escape(words.headline(night))}</p>',
        _cautions(night),
        _tiles(night, zone) if night.listening else "",
        _timeline(night) if night.listening or night.gaps else "",
        _bouts(night, zone),
        _gaps(night, zone),
        _losses(night, zone),
        _trends(month),
        _reading(night),
        _footer(night),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part).encode("utf-8", "backslashreplace")


def _style() -> str:
    return files("crykit_app.report").joinpath("page.css").read_text(encoding="utf-8")


def _cautions(night: Night) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in words.cautions(night))
    return f'<ul class="cautions">{items}</ul>' if items else ""


def _tiles(night: Night, zone: bool) -> str:
    quiet, bout = night.longest_quiet, night.longest_bout
    crying = words.length(night.crying_s) if night.cries else "none heard"
    at_least = "at least, " if night.open_cries else ""
    tiles = [
        ("Crying", crying, at_least + words.counted(len(night.cries), "cry", "cries")),
        (
            "Longest quiet",
            words.length(quiet.seconds) if quiet else "none",
            words.stretch(quiet, zone=zone) if quiet else "",
        ),
        (
            "Bouts",
            str(len(night.bouts)),
            f"longest {words.length(bout.span.seconds)}" if bout else "",
        ),
        ("Listened", words.length(night.listened_s), _listened(night, zone)),
    ]
    return (
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
            for name, value, more in tiles
        )
        + "</dl>"
    )


def _listened(night: Night, zone: bool) -> str:
    first, last = night.listening[0], night.listening[-1]
    end = "now" if night.still_listening else words.clock(last.end, zone=zone)
    return f"{words.clock(first.begin, zone=zone)} to {end}"


def _timeline(night: Night) -> str:
    days = night.shown.seconds / 86400
    narrow = timeline(night, name="narrow", width=360, hours=4 if days <= 1.1 else 12)
    wide = timeline(night, name="wide", width=960, hours=12 if days <= 2.1 else 24)
    legend = [
        ("cry", "cry (taller is louder)"),
        ("heard", "something listened"),
        *([("gap", "nothing listened")] if night.gaps else []),
        *([("lost", "audio lost")] if night.lost else []),
    ]
    items = "".join(f"<li>{swatch(kind)}{text}</li>" for kind, text in legend)
    legend_list = f'<ul class="legend">{items}</ul>'
    return f"<h2>Through the night</h2>\n<figure>{narrow}{wide}{legend_list}</figure>"


def _bouts(night: Night, zone: bool) -> str:
    if not night.bouts:
        return ""
    rows = [_bout(bout, zone) for bout in night.bouts]
    head = "<tr><th>From</th><th>To</th><th>Crying</th><th>Cries</th><th>Loudest</th></tr>"
    table = f"<table>{head}{''.join(rows[:ROWS_AT_FIRST])}</table>"
    rest = rows[ROWS_AT_FIRST:]
    if rest:
        table += (
            f"<details><summary>{len(rest)} more</summary><table>{head}{''.join(rest)}</table>"
            "</details>"
        )
    note = f"Cries less than {words.length(BOUT_GAP_S)} apart are one bout."
    return f'<h2>Bouts of crying</h2>\n{table}\n<p class="dim">{note}</p>'


def _bout(bout: Bout, zone: bool) -> str:
    cells = [
        words.clock(bout.span.begin, zone=zone),
        words.bout_end(bout, zone=zone),
        words.length(bout.crying_s) if bout.crying_s else "?",
        str(bout.cries),
        words.level(bout.loudest_dbfs),
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _gaps(night: Night, zone: bool) -> str:
    if not night.gaps:
        return ""
    items = "".join(
        f"<li>{words.stretch(gap.span, zone=zone)} ({words.length(gap.span.seconds)}): "
        f"{escape(gap.why)}</li>"
        for gap in night.gaps
    )
    return f'<h2>When nothing listened</h2>\n<ul class="plain">{items}</ul>'


def _losses(night: Night, zone: bool) -> str:
    if night.lost_s <= 0:
        return ""
    listed = ", ".join(
        f"{words.clock(at, zone=zone)} ({words.length(lost_s) if lost_s >= 1 else 'under 1 s'})"
        for at, lost_s in night.lost[:LOSSES_LISTED]
    )
    more = len(night.lost) - LOSSES_LISTED
    rest = f" and {more} more times" if more > 0 else ""
    when = f"At {listed}{rest}." if listed else "The moments were not noted."
    return (
        f"<h2>Lost audio</h2>\n<p>{when} Usually the machine was too busy, or the microphone's "
        "driver was; <code>crykit doctor</code> looks for the cause.</p>"
    )


def _trends(month: list[NightSum]) -> str:
    if sum(night.listened_s > 0 for night in month) < 2:
        return ""
    week = month[-WEEK:]
    change = week_change(month)
    said = f"<p>{escape(words.change(change))}</p>" if change else ""
    crying = [night.crying_s for night in month]
    quiet = [night.longest_quiet_s for night in month]
    last = bars(
        week, crying[-WEEK:], name="week", width=360, text="Crying in each of the last 7 nights"
    )
    cry_month = bars(month, crying, name="cry-month", width=360, text="Crying, last 30 nights")
    quiet_month = bars(
        month, quiet, name="quiet-month", width=360, text="Longest quiet, last 30 nights"
    )
    hatched = any(not night.counts for night in month)
    note = (
        f'<ul class="legend"><li>{swatch("gap")}listened to for less than four hours, or not at '
        "all</li></ul>"
        if hatched
        else ""
    )
    return (
        f"<h2>The last seven nights</h2>\n{said}"
        f'<figure class="week"><figcaption>Crying a night</figcaption>{last}</figure>\n'
        '<h2>The last thirty nights</h2>\n<div class="month">'
        f"<figure><figcaption>Crying a night</figcaption>{cry_month}</figure>"
        f"<figure><figcaption>Longest quiet stretch</figcaption>{quiet_month}</figure></div>{note}"
    )


def _reading(night: Night) -> str:
    levels = ""
    if night.loudest_dbfs is not None:
        levels = (
            f"<p>Loudest cry {words.level(night.loudest_dbfs)}, half of them over "
            f"{words.level(night.median_dbfs)}. dBFS is counted from the loudest sound that the "
            "microphone can take, which is 0: it compares nights at the same place and gain, and "
            "is no measure of how loud it was in the cot.</p>"
        )
    return (
        "<h2>How to read this</h2>\n"
        "<p>Quiet is time in which something listened and no cry was heard. "
        "A baby that is quiet may be awake.</p>\n"
        f"{levels}<p>{words.NO_REASON}</p>\n<p><strong>{words.NO_DEVICE}</strong></p>"
    )


def _footer(night: Night) -> str:
    heard = ""
    if night.sources:
        by = f"Heard on {', '.join(night.sources)}, by the model {', '.join(night.models)}."
        heard = f"<p>{escape(by)}</p>"
    return (
        f'<footer class="dim">{heard}'
        f"<p>Made by crykit {__version__} on {local(night.now):%Y-%m-%d at %H:%M %Z} on this "
        "device, from its own event log. This page asks for nothing from anywhere.</p></footer>"
    )
