"""The terminal app: what a parent sees at night, at arm's length.

It takes messages out of a `Mailbox` a few times a second and hands plain values to its widgets; the
engine runs in a thread of its own and knows none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.reactive import reactive
from textual.widgets import Footer, Static

from crykit.bundle import Bundle
from crykit.gate import GateSettings
from crykit.listener import FrameBlock
from crykit.runtime import Runtime
from crykit_app.clocktext import length_text, moment_text
from crykit_app.history import History
from crykit_app.messages import (
    AudioLost,
    CryBegan,
    CryEnded,
    Finished,
    Mailbox,
    Message,
    Progress,
    StoreRecovered,
    StoreTrouble,
    Summary,
)
from crykit_app.palette import CALM, NIGHT, Palette
from crykit_app.sources import Source
from crykit_app.widgets.events import EventList
from crykit_app.widgets.help import HelpScreen
from crykit_app.widgets.melstrip import MelStrip
from crykit_app.widgets.meter import LevelMeter
from crykit_app.widgets.state import StatePanel
from crykit_app.widgets.status import StatusBar, TitleBar
from crykit_app.widgets.trace import ProbabilityTrace

REDRAW_HZ = 8


@dataclass(frozen=True)
class ModelInfo:
    """What the screen says of the model, and the clock of its frames."""

    model_id: str
    runtime: str
    sample_rate_hz: int
    frame_samples: int
    n_mels: int

    @classmethod
    def of(cls, bundle: Bundle, runtime: Runtime) -> ModelInfo:
        """From an opened bundle and runtime."""
        manifest = bundle.manifest
        return cls(
            bundle.model_id,
            runtime.name,
            manifest.sample_rate_hz,
            manifest.frame_samples,
            manifest.n_mels,
        )


def _now() -> datetime:
    return datetime.now().astimezone()


class CrykitApp(App[None]):
    """Shows one session. `mailbox` is what the engine publishes to; `now` is the clock shown.

    With `redraw_hz=None` it redraws only when `refresh_from_mailbox` is called.
    """

    TITLE = "crykit"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (90, "-medium"), (120, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (26, "-tall"), (40, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
        Binding("c", "clear_list", "clear list"),
        Binding("t", "toggle_night", "night"),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    palette: reactive[Palette] = reactive(CALM, init=False)

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        source: Source,
        model: ModelInfo,
        gate: GateSettings,
        title_note: str | None = None,
        close_at_end: bool = False,
        now: Callable[[], datetime] = _now,
        redraw_hz: float | None = REDRAW_HZ,
    ) -> None:
        super().__init__()
        for palette in (CALM, NIGHT):
            self.register_theme(palette.theme())
        self.theme = f"crykit-{CALM.name}"
        self._mailbox = mailbox
        self._source = source
        self._title_note = title_note
        self._close_at_end = close_at_end
        self._now = now
        self._redraw_hz = redraw_hz
        self._rate_hz = model.sample_rate_hz
        self._frame_s = model.frame_samples / model.sample_rate_hz
        self._history = History(self._frame_s, model.n_mels)
        self._model = model
        self._lost_s = 0.0
        self._gate = gate
        self._position_s = 0.0
        self._began_cry: CryBegan | None = None
        self._ended_cry: CryEnded | None = None
        self._summary: Summary | None = None
        self._signalled = False

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The names that the style sheet uses beyond Textual's own."""
        return CALM.variables

    def compose(self) -> ComposeResult:
        yield TitleBar(self._source.name, id="title")
        if self._title_note:
            yield Static(self._title_note, id="note", markup=False)
        yield StatePanel(id="state")
        with Container(id="body"):
            with Vertical(id="signals"):
                yield LevelMeter(id="meter")
                yield ProbabilityTrace(
                    self._history, self._gate.on_threshold, self._gate.off_threshold, id="trace"
                )
                yield MelStrip(self._history, id="mel")
            yield EventList(id="events")
        yield StatusBar(
            self._model.model_id,
            self._model.runtime,
            kind=self._source.kind,
            rate_hz=self._rate_hz,
            id="status",
        )
        yield Footer(id="keys", show_command_palette=False)

    def on_mount(self) -> None:
        """Dress, and begin to look into the mailbox."""
        self.watch_palette(self.palette)
        self._show_state()
        self._show_clock()
        if self._redraw_hz is not None:
            self.set_interval(1 / self._redraw_hz, self.refresh_from_mailbox)

    def close_from_signal(self) -> None:
        """Leave soon; called by a signal handler, which must not touch the screen itself."""
        self._signalled = True

    def refresh_from_mailbox(self) -> None:
        """Show what has happened since the last call."""
        if self._signalled:
            self.exit()
            return
        levels: list[float] = []
        for message in self._mailbox.take():
            if isinstance(message, FrameBlock):
                self._history.add(message)
                levels += message.level_dbfs.tolist()
                scored_s = message.first_sample / self._rate_hz
                heard_s = scored_s + len(message.level_dbfs) * self._frame_s + self._lost_s
                self._position_s = max(self._position_s, heard_s)
            else:
                self._show(message)
        if levels:
            self.query_one(LevelMeter).show(max(levels), len(levels) * self._frame_s)
        self.query_one(ProbabilityTrace).columns = self._history.columns
        self.query_one(MelStrip).columns = self._history.columns
        self._show_state()
        self._show_clock()

    def watch_palette(self, palette: Palette) -> None:
        """Every widget that draws itself wears the palette; the others wear its theme."""
        self.theme = f"crykit-{palette.name}"
        for kind in (TitleBar, StatePanel, LevelMeter, ProbabilityTrace, MelStrip, StatusBar):
            self.query_one(kind).palette = palette

    def action_clear_list(self) -> None:
        """Empty the list on the screen; the event log keeps everything."""
        self.query_one(EventList).clear_events()

    def action_toggle_night(self) -> None:
        """Dim red, or back."""
        self.palette = CALM if self.palette is NIGHT else NIGHT

    def action_help(self) -> None:
        """Explain the screen."""
        self.push_screen(HelpScreen(self._gate))

    def _show(self, message: Message) -> None:
        events = self.query_one(EventList)
        status = self.query_one(StatusBar)
        match message:
            case CryBegan():
                self._began_cry = message
                events.begin(message)
            case CryEnded():
                self._began_cry, self._ended_cry = None, message
                events.end(message)
            case Progress():
                self._position_s = message.position_s
                status.progress = message
            case AudioLost():
                self._lost_s = message.total_samples / self._rate_hz
                status.lost_samples = message.total_samples
            case StoreTrouble():
                status.trouble = message.reason
            case StoreRecovered():
                status.trouble = ""
            case Finished():
                self._finish(message.summary)
            case _:
                pass

    def _finish(self, summary: Summary) -> None:
        self._summary = summary
        self._position_s = summary.heard_s
        self._began_cry = None
        if self._close_at_end or self._signalled:
            self.exit()

    def _show_clock(self) -> None:
        title = self.query_one(TitleBar)
        title.clock = self._now().strftime("%H:%M")
        title.heard_s = int(self._position_s)
        title.length_s = self._source.length_s

    def _show_state(self) -> None:
        panel = self.query_one(StatePanel)
        began, ended, summary = self._began_cry, self._ended_cry, self._summary
        panel.note = ""
        if summary is not None:
            panel.word = "stopped" if summary.error else "ended"
            panel.timer = ""
            count = len(summary.events)
            heard = f"{count} {'cry' if count == 1 else 'cries'} in {length_text(summary.heard_s)}"
            panel.detail = str(summary.error) if summary.error else heard
            panel.note = heard if summary.error else "press q to close"
        elif began is not None:
            panel.word = "crying"
            length_s = self._position_s - began.event.onset_s
            panel.timer = length_text(length_s)
            panel.detail = f"crying since {moment_text(began.start, began.event.onset_s)}"
            panel.detail += f" ({length_text(length_s)})"
        else:
            panel.word = "quiet" if self._position_s > 0 else "starting"
            panel.timer = ""
            panel.detail = "no cry yet"
            if ended is not None:
                panel.detail = f"last cry {moment_text(ended.start, ended.event.onset_s)}"
                panel.note = f"lasted {length_text(ended.event.duration_s)}"
