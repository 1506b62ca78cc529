"""Level meter: dB of full scale, with a peak that is held and then falls."""

from __future__ import annotations

from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from crykit_app.palette import CALM, Palette

LOWEST_DBFS = -80.0
NO_SIGNAL_DBFS = -95.0
PEAK_HOLD_S = 1.5
PEAK_FALL_DB_PER_S = 20.0

_LABEL = "level "
_READING_WIDTH = 23
_TICKS_DBFS = (-80, -60, -40, -20, 0)


class LevelMeter(Widget):
    """One row of bar, a second with ticks where there is room."""

    palette: reactive[Palette] = reactive(CALM)
    level_dbfs: reactive[float | None] = reactive(None)
    peak_dbfs: reactive[float | None] = reactive(None)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._peak_age_s = 0.0

    def show(self, level_dbfs: float, elapsed_s: float) -> None:
        """Show the loudest frame of the last `elapsed_s` of sound."""
        peak = self.peak_dbfs
        self._peak_age_s += elapsed_s
        if peak is None or level_dbfs >= peak:
            peak, self._peak_age_s = level_dbfs, 0.0
        elif self._peak_age_s > PEAK_HOLD_S:
            peak = max(level_dbfs, peak - PEAK_FALL_DB_PER_S * elapsed_s)
        self.level_dbfs, self.peak_dbfs = round(level_dbfs, 1), round(peak, 1)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        bar_width = max(4, width - len(_LABEL) - _READING_WIDTH)
        if y == 0:
            return self._bar(bar_width).crop(0, width)
        if y == 1:
            return self._ticks(bar_width).crop(0, width)
        return Strip.blank(width, self.palette.style(self.palette.text))

    def _bar(self, width: int) -> Strip:
        palette = self.palette
        level, peak = self.level_dbfs, self.peak_dbfs
        filled = _cells(level, width)
        peak_at = min(width - 1, int(_cells(peak, width)))
        whole = int(filled)
        cells = ["━"] * whole + (["╸"] if filled - whole >= 0.5 else [])
        cells = cells[:width]
        rest = ["─"] * (width - len(cells))
        segments = [Segment(_LABEL, palette.style(palette.dim))]
        row = [(cell, palette.accent) for cell in cells] + [(cell, palette.panel) for cell in rest]
        if peak is not None and peak > LOWEST_DBFS:
            row[peak_at] = ("┃", palette.text)
        segments += [Segment(cell, palette.style(color)) for cell, color in row]
        segments.append(Segment(self._reading(), palette.style(palette.text)))
        return Strip(segments).simplify()

    def _reading(self) -> str:
        level, peak = self.level_dbfs, self.peak_dbfs
        if level is None or peak is None:
            text = "no sound yet"
        elif peak <= NO_SIGNAL_DBFS:
            text = "digital silence"
        else:
            text = f"{level:.0f} dBFS  peak {peak:.0f}"
        return text.rjust(_READING_WIDTH)

    def _ticks(self, width: int) -> Strip:
        row = [" "] * (len(_LABEL) + width + _READING_WIDTH)
        for tick in _TICKS_DBFS:
            text = str(tick)
            at = len(_LABEL) + min(width - 1, int(_cells(tick, width)))
            # The number's last digit stands under its place, the first one's first.
            at = at if tick == _TICKS_DBFS[0] else at - len(text) + 1
            row[at : at + len(text)] = text
        return Strip([Segment("".join(row), self.palette.style(self.palette.dim))])


def _cells(level_dbfs: float | None, width: int) -> float:
    if level_dbfs is None:
        return 0.0
    share = (level_dbfs - LOWEST_DBFS) / -LOWEST_DBFS
    return width * min(1.0, max(0.0, share))
