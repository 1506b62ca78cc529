"""The one thing to be read at a glance: quiet, or crying since when."""

from __future__ import annotations

import textwrap

from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from crykit_app.bigtext import big_text
from crykit_app.palette import CALM, Palette

_GAP = 4
_PAD = 3


class StatePanel(Widget):
    """A word in large letters, its length as large digits, and one or two lines of detail.

    `word` is one of starting, quiet, crying, ended, stopped; while it is crying the whole panel
    is filled, so that the state can be told without colour and without reading.
    """

    palette: reactive[Palette] = reactive(CALM)
    word: reactive[str] = reactive("starting")
    timer: reactive[str] = reactive("")
    detail: reactive[str] = reactive("")
    note: reactive[str] = reactive("")

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        palette = self.palette
        foreground, background = palette.text, palette.panel
        if self.word == "crying":
            foreground, background = palette.on_cry, palette.cry
        elif self.word == "stopped":
            # Nobody listens any more: that must not look like a quiet night.
            foreground, background = palette.background, palette.text
        rows = self._rows(width, height)
        text = rows[y] if y < len(rows) else ""
        style = palette.style(foreground, background, bold=self.word in ("crying", "stopped"))
        return Strip([Segment(text[:width].ljust(width), style)], width)

    def _rows(self, width: int, height: int) -> list[str]:
        scale = 2 if height >= 12 and width >= 100 else 1
        word = big_text(self.word, scale)
        timer = big_text(self.timer, scale) if self.timer else []
        block = [" " * _PAD + row for row in word]
        details = [line for line in (self.detail, self.note) if line]
        if timer and _PAD + len(word[0]) + _GAP + len(timer[0]) + _PAD <= width:
            gap = width - 2 * _PAD - len(word[0]) - len(timer[0])
            block = [left + " " * gap + right for left, right in zip(block, timer, strict=True)]
            return _centred(_with_details(block, details, height), height)
        return _centred(_beside(block, details, width), height)


def _with_details(block: list[str], details: list[str], height: int) -> list[str]:
    """Details under the letters, if there is a row for them."""
    under = "   ".join(details)
    if height > len(block):
        return [*block, " " * _PAD + under] if under else block
    return block


def _beside(block: list[str], details: list[str], width: int) -> list[str]:
    """Details at the right of the letters, one a row, against the middle."""
    left = max(len(row) for row in block) + _GAP
    room = max(1, width - left - 1)
    lines = [line for text in details for line in textwrap.wrap(text, room)][: len(block)]
    first = max(0, (len(block) - len(lines)) // 2)
    rows = [row.ljust(left) for row in block]
    for index, line in enumerate(lines):
        rows[first + index] += line
    return rows


def _centred(rows: list[str], height: int) -> list[str]:
    above = max(0, (height - len(rows)) // 2)
    return [""] * above + rows[: height - above]
