"""The cries so far, newest first."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import DataTable

from crykit_app.clocktext import length_text, moment_text
from crykit_app.messages import CryBegan, CryEnded

MAX_ROWS = 200

Row = tuple[str, str, str, str]


class EventList(DataTable[Text]):
    """One row a cry: when, how long, peak probability, level. The log on disk has them all."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, show_cursor=False, zebra_stripes=False, cell_padding=1)
        self._rows: list[tuple[str, Row]] = []

    def on_mount(self) -> None:
        """Name the columns."""
        self._fill()

    def begin(self, message: CryBegan) -> None:
        """A cry that goes on is the first row."""
        event = message.event
        when = moment_text(message.start, event.onset_s)
        self._put(event.id, (f"● {when}", "now", f"{event.peak_probability:.2f}", "..."))

    def end(self, message: CryEnded) -> None:
        """Complete the row."""
        event = message.event
        self._put(
            event.id,
            (
                f"  {moment_text(message.start, event.onset_s)}",
                length_text(event.duration_s),
                f"{event.peak_probability:.2f}",
                f"{event.level_dbfs:.0f} dBFS",
            ),
        )

    def clear_events(self) -> None:
        """Empty the list, but for a cry that goes on."""
        self._rows = [(key, row) for key, row in self._rows if row[1] == "now"]
        self._fill()

    def _put(self, key: str, row: Row) -> None:
        known = [index for index, (old, _) in enumerate(self._rows) if old == key]
        if known:
            self._rows[known[0]] = (key, row)
        else:
            self._rows.insert(0, (key, row))
            del self._rows[MAX_ROWS:]
        self._fill()

    def _fill(self) -> None:
        self.clear(columns=True)
        for title, width in (("  cry at", 14), ("length", 8), ("peak", 5), ("level", 9)):
            self.add_column(title, width=width)
        for key, row in self._rows:
            self.add_row(Text(row[0]), *(Text(cell, justify="right") for cell in row[1:]), key=key)
