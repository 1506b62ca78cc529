"""Colours: a calm dark theme and a dim red one for a dark room.

Red light disturbs night vision and sleep least. Nothing rests on hue alone: a cry is also a word,
a filled panel and a taller bar, and the two themes differ in lightness from quiet to cry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

HEAT_LEVELS = 24
"""Shades of the log-mel strip: more are not told apart in a cell, fewer show steps."""


@dataclass(frozen=True)
class Palette:
    """One theme; every colour is `#rrggbb`. `heat` runs from silence to loud, darkest first."""

    name: str
    background: str
    panel: str
    text: str
    dim: str
    accent: str
    between: str
    cry: str
    on_cry: str
    heat: tuple[str, ...]

    @cached_property
    def heat_colors(self) -> tuple[Color, ...]:
        """`HEAT_LEVELS` colours, `heat` interpolated."""
        return tuple(self._heat(level / (HEAT_LEVELS - 1)) for level in range(HEAT_LEVELS))

    def style(self, foreground: str, background: str | None = None, *, bold: bool = False) -> Style:
        """A style on this theme's background, or on another."""
        return Style(color=foreground, bgcolor=background or self.background, bold=bold)

    @property
    def variables(self) -> dict[str, str]:
        """What the style sheet calls `$dim`, `$cry`, ..., and Textual's own that differ."""
        return {
            "dim": self.dim,
            "cry": self.cry,
            "on-cry": self.on_cry,
            "footer-background": self.background,
            "footer-foreground": self.dim,
            "footer-key-foreground": self.text,
            "footer-key-background": self.background,
            "footer-description-foreground": self.dim,
            "footer-description-background": self.background,
            "footer-item-background": self.background,
            "scrollbar": self.dim,
            "scrollbar-background": self.background,
            "scrollbar-corner-color": self.background,
        }

    def theme(self) -> Theme:
        """The same colours for Textual's own widgets."""
        return Theme(
            name=f"crykit-{self.name}",
            primary=self.accent,
            secondary=self.accent,
            accent=self.cry,
            warning=self.cry,
            error=self.cry,
            foreground=self.text,
            background=self.background,
            surface=self.background,
            panel=self.panel,
            dark=True,
            variables=self.variables,
        )

    def _heat(self, position: float) -> Color:
        scaled = position * (len(self.heat) - 1)
        low = min(int(scaled), len(self.heat) - 2)
        share = scaled - low
        pair = (Color.parse(self.heat[low]).triplet, Color.parse(self.heat[low + 1]).triplet)
        if pair[0] is None or pair[1] is None:
            raise ValueError(f"heat colours must be #rrggbb, got {self.heat}")
        mixed = (round(a + share * (b - a)) for a, b in zip(pair[0], pair[1], strict=True))
        return Color.from_rgb(*mixed)


CALM = Palette(
    name="calm",
    background="#0d131e",
    panel="#151e2d",
    text="#c8d3e4",
    dim="#71809a",
    accent="#6ea8dc",
    between="#a9b9cf",
    cry="#ffb454",
    on_cry="#1d1303",
    heat=("#0d131e", "#16304f", "#2b6390", "#6fb0c9", "#f3e9c8"),
)

NIGHT = Palette(
    name="night",
    background="#080000",
    panel="#150303",
    text="#c4492f",
    dim="#843020",
    accent="#8f3522",
    between="#b0452d",
    cry="#b0442a",
    on_cry="#0c0000",
    heat=("#080000", "#260806", "#54170e", "#8c3019", "#c4603c"),
)
