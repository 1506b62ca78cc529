"""The quiet lines: what is listening to what, and how well it keeps up."""

from __future__ import annotations

from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from crykit_app.clocktext import length_text
from crykit_app.messages import Progress
from crykit_app.palette import CALM, Palette

_SHORT_UNDER = 80

DISCLAIMER = "not a medical device"


class TitleBar(Widget):
    """Name, source, how much has been heard, and the time of day."""

    palette: reactive[Palette] = reactive(CALM)
    clock: reactive[str] = reactive("")
    heard_s: reactive[int] = reactive(0)
    length_s: reactive[float | None] = reactive(None)

    def __init__(self, source: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._source = source

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        heard = length_text(self.heard_s)
        if self.length_s is not None:
            heard += f" of {length_text(self.length_s)}"
        right = f"{heard}   {self.clock} "
        room = max(0, width - len(right) - 12)
        palette = self.palette
        return Strip(
            [
                Segment(" crykit   ", palette.style(palette.text, bold=True)),
                Segment(_fit(self._source, room).ljust(room + 2), palette.style(palette.dim)),
                Segment(right, palette.style(palette.text)),
            ]
        ).adjust_cell_length(width, palette.style(palette.dim))


class StatusBar(Widget):
    """Model and device; latency, cost and losses; and what this is not."""

    palette: reactive[Palette] = reactive(CALM)
    progress: reactive[Progress | None] = reactive(None)
    lost_samples: reactive[int] = reactive(0)
    trouble: reactive[str] = reactive("")

    def __init__(
        self, model_id: str, runtime: str, *, kind: str, rate_hz: int, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        name, _, digest = model_id.partition("@sha256:")
        self._model = f"{name} {digest}  {runtime}  {kind}"
        self._rate_hz = rate_hz

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        palette = self.palette
        if y == 0:
            room = max(0, width - len(DISCLAIMER) - 2)
            text = _fit(self._model, room).ljust(room) + "  " + DISCLAIMER
            return self._strip(text, palette.dim)
        if self.trouble:
            return self._strip(_fit(f"! {self.trouble}", width), palette.cry)
        lost_s = self.lost_samples / self._rate_hz
        lost = f"lost {lost_s:.2f} s" if self.lost_samples else "no audio lost"
        text = "  ".join([*self._figures(width < _SHORT_UNDER), lost])
        return self._strip(
            _fit(text, width),
            palette.cry if self.lost_samples else palette.dim,
        )

    def _figures(self, short: bool) -> list[str]:
        progress = self.progress
        if progress is None:
            return ["waiting for sound"]
        latency_ms = 1000 * progress.latency_samples / self._rate_hz
        figures = [
            f"latency {latency_ms:.0f} + {progress.compute_ms:.1f} ms"
            if short
            else f"latency {latency_ms:.0f} ms + {progress.compute_ms:.1f} ms compute",
            f"{100 * progress.real_time_factor:.1f}% load"
            if short
            else f"real-time factor {progress.real_time_factor:.4f}",
        ]
        if progress.behind_s >= 1:
            figures.append(f"{progress.behind_s:.1f} s behind")
        return figures

    def _strip(self, text: str, color: str) -> Strip:
        width = self.size.width
        return Strip([Segment(text[:width].ljust(width), self.palette.style(color))], width)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
