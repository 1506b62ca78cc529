"""What the screen means, in a few lines."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from crykit.gate import GateSettings

_TEXT = """\
q         quit; a cry that goes on is closed and kept
c         clear the list on the screen (the log keeps all)
t         dim red for a dark room, and back
?         this help; any of ?, q, Esc closes it

level     loudness of the microphone; ┃ is the last peak
cry       how sure the model is, newest at the right.
          A cry begins over {on:.2f} for {min_on:.0f} ms and
          lasts until it is under {off:.2f} for {min_off:.0f} ms
log-mel   the sound as the model sees it, high pitch above
latency   what the method waits for, plus computing time
lost      sound that never reached the model

The log: crykit events
This is not a medical device. It can miss a cry."""


class HelpScreen(ModalScreen[None]):
    """Over the app, until a key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss_help", "close")
    ]

    def __init__(self, gate: GateSettings) -> None:
        super().__init__()
        self._gate = gate

    def compose(self) -> ComposeResult:
        gate = self._gate
        text = _TEXT.format(
            on=gate.on_threshold,
            off=gate.off_threshold,
            min_on=gate.min_on_ms,
            min_off=gate.min_off_ms,
        )
        with VerticalScroll():
            yield Static(text, markup=False)

    def action_dismiss_help(self) -> None:
        """Back to the app."""
        self.dismiss(None)
