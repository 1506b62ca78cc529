"""What the model sees: log-mel energy over the last seconds, two bands a cell."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from crykit_app.history import History
from crykit_app.palette import CALM, HEAT_LEVELS, Palette
from crykit_app.widgets.trace import MARGIN

_LEAST_SPAN = 1.5
"""30 dB in the model's scale (20 dB a unit): a silent room is not blown up into a storm."""


@lru_cache(maxsize=4 * HEAT_LEVELS * HEAT_LEVELS)
def _cell_style(top: Color, bottom: Color) -> Style:
    return Style.from_color(top, bottom)


class MelStrip(Widget):
    """High bands above, newest at the right, contrast fitted to what is in sight."""

    palette: reactive[Palette] = reactive(CALM)
    columns: reactive[int] = reactive(0)

    def __init__(self, history: History, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._history = history
        self._levels: npt.NDArray[np.intp] = np.zeros((0, 0), np.intp)
        self._drawn_for: tuple[int, Size] | None = None

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        palette = self.palette
        levels = self._picture(height)
        label = {0: "7.8 kHz", height - 1: "60 Hz"}.get(y, "")
        if height > 2 and y == height // 2:
            label = "log-mel"
        drawn = max(0, width - MARGIN)
        segments = [Segment(label.ljust(MARGIN), palette.style(palette.dim))]
        segments.append(Segment(" " * (drawn - len(levels)), palette.style(palette.dim)))
        heat = palette.heat_colors
        rows: list[list[int]] = levels.tolist()
        for column in rows:
            top, bottom = column[2 * y], column[2 * y + 1]
            segments.append(Segment("▀", _cell_style(heat[top], heat[bottom])))
        return Strip(segments, width).simplify()

    def _picture(self, height: int) -> npt.NDArray[np.intp]:
        """Heat levels (columns, 2 * height), highest band first; kept until a column is added."""
        key = (self._history.columns, self.size)
        if self._drawn_for != key:
            drawn = max(0, self.size.width - MARGIN)
            self._levels = heat_levels(self._history.log_mel(drawn), 2 * height)
            self._drawn_for = key
        return self._levels


def heat_levels(log_mel: npt.NDArray[np.float32], bands: int) -> npt.NDArray[np.intp]:
    """Fold (columns, n_mels) to `bands`, highest first, as levels 0 to `HEAT_LEVELS` - 1."""
    columns, n_mels = log_mel.shape
    if columns == 0 or bands == 0:
        return np.zeros((0, bands), np.intp)
    edges = [band * n_mels // bands for band in range(bands + 1)]
    folded = np.stack(
        [
            log_mel[:, low : max(high, low + 1)].max(axis=1)
            for low, high in zip(edges[:-1], edges[1:], strict=True)
        ],
        axis=1,
    )[:, ::-1]
    floor, ceiling = np.percentile(folded, (10, 99.5))
    ceiling = max(ceiling, floor + _LEAST_SPAN)
    scaled = (folded - floor) / (ceiling - floor) * (HEAT_LEVELS - 1)
    return np.clip(np.nan_to_num(scaled), 0, HEAT_LEVELS - 1).astype(np.intp)
