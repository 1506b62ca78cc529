"""The probability of a cry over the last seconds, with both thresholds drawn."""

from __future__ import annotations

import numpy as np
from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from crykit_app.history import History
from crykit_app.palette import CALM, Palette

MARGIN = 10
"""Cells left of the drawing, shared with the log-mel strip so that both have one time axis."""

_EIGHTHS = " ▁▂▃▄▅▆▇█"


class ProbabilityTrace(Widget):
    """Bars from 0 to 1, newest at the right; a bar over the upper threshold is bright."""

    palette: reactive[Palette] = reactive(CALM)
    columns: reactive[int] = reactive(0)

    def __init__(
        self, history: History, on_threshold: float, off_threshold: float, *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._history = history
        self._on = on_threshold
        self._off = off_threshold

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        palette = self.palette
        row = height - 1 - y  # counted from the bottom, as probability is
        drawn = max(0, width - MARGIN)
        values = self._history.probability(drawn)
        line = self._line_here(row, height)
        label = self._label(row, height, y)
        segments = [Segment(label.ljust(MARGIN), palette.style(palette.dim))]
        empty = "╌" if line else " "
        blank = Segment(empty * (drawn - len(values)), palette.style(palette.dim))
        segments.append(blank)
        eighths = np.clip(np.round(values * height * 8).astype(int) - 8 * row, 0, 8)
        for value, filled in zip(values.tolist(), eighths.tolist(), strict=True):
            if filled:
                segments.append(Segment(_EIGHTHS[filled], palette.style(self._color(value))))
            elif row == 0:
                segments.append(Segment("▁", palette.style(palette.panel)))
            else:
                segments.append(Segment(empty, palette.style(palette.dim)))
        return Strip(segments, width).simplify()

    def _color(self, value: float) -> str:
        if value >= self._on:
            return self.palette.cry
        return self.palette.between if value >= self._off else self.palette.accent

    def _line_here(self, row: int, height: int) -> bool:
        return row in (_row(self._on, height), _row(self._off, height))

    def _label(self, row: int, height: int, y: int) -> str:
        on_row, off_row = _row(self._on, height), _row(self._off, height)
        if row == on_row == off_row:
            return f"{self._off:.2f}-{self._on:.2f}"
        if row == on_row:
            return f"on   {self._on:.2f}"
        if row == off_row:
            return f"off  {self._off:.2f}"
        if y == 0:
            return "cry"
        span_s = self._history.column_s * max(0, self.size.width - MARGIN)
        return f"-{span_s:.0f} s" if row == 0 else ""


def _row(threshold: float, height: int) -> int:
    return min(height - 1, int(threshold * height))
