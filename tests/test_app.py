"""The terminal app: how it looks, what its keys do, and that closing it loses nothing."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from crykit.bundle import Bundle
from crykit.errors import DeviceError
from crykit.events import CryEvent, CryStarted
from crykit.gate import GateSettings
from crykit.listener import FrameBlock
from crykit.runtime import open_runtime
from crykit_app.app import CrykitApp, ModelInfo
from crykit_app.bigtext import big_text
from crykit_app.engine import Engine
from crykit_app.history import History
from crykit_app.logbook import read_events
from crykit_app.messages import (
    AudioLost,
    CryBegan,
    CryEnded,
    Finished,
    Mailbox,
    Progress,
    StoreRecovered,
    StoreTrouble,
    Summary,
)
from crykit_app.palette import CALM, NIGHT
from crykit_app.sources import Block, GeneratedSource
from crykit_app.store import EventStore
from crykit_app.widgets.events import EventList
from crykit_app.widgets.help import HelpScreen
from crykit_app.widgets.melstrip import heat_levels
from crykit_app.widgets.meter import LevelMeter
from crykit_app.widgets.state import StatePanel
from crykit_app.widgets.status import StatusBar

NIGHTFALL = datetime(2026, 11, 20, 3, 12, 0, tzinfo=timezone(timedelta(hours=1)))
GATE = GateSettings(on_threshold=0.6, off_threshold=0.35)
ALWAYS = GateSettings(on_threshold=1e-9, off_threshold=1e-9, min_on_ms=100)
MODEL = ModelInfo("cry-student@sha256:ab12cd34ef56", "onnx-fp32", 16_000, 640, 64)
SIZES = [(60, 20), (100, 30), (140, 45)]

FIRST = CryEvent("first", 20.0, 27.3, 0.97, 0.91, -31.2)
SECOND = CryStarted("second", 58.0, 58.6, 0.95)
QUIET_S, CRYING_S = 54.4, 64.0


def silence(_rate_hz: int) -> Iterator[np.ndarray]:
    yield np.zeros(0, np.float32)


SOURCE = GeneratedSource("nursery", silence, kind="microphone", started_at=NIGHTFALL)


def at(second: float) -> datetime:
    return NIGHTFALL + timedelta(seconds=second)


def frames(until_s: float) -> Iterator[FrameBlock]:
    """A night of steps: a floor, one doubtful rise, one cry, and another from 58 s on."""
    rng = np.random.default_rng(7)
    bands = np.arange(64)
    for step in range(round(until_s / 0.16)):
        second = step * 0.16
        cry = FIRST.onset_s < second < FIRST.offset_s or second > SECOND.onset_s
        doubt = 0.45 * np.exp(-(((second - 48) / 1.5) ** 2))
        probability = 0.93 if cry else 0.05 + doubt
        mel = -1.0 + 0.15 * rng.standard_normal((16, 64)) - bands / 80
        for harmonic in (1.0, 1.5, 2.0, 2.4, 2.7) if cry else ():
            pitch = (18 + 2 * np.sin(3 * second)) * harmonic
            mel += 1.8 / harmonic * np.exp(-(((bands - pitch) / 1.2) ** 2))
        yield FrameBlock(
            first_sample=2560 * step,
            cry_probability=np.full(4, probability, np.float32),
            embedding=np.zeros((4, 8), np.float32),
            log_mel=mel.astype(np.float32),
            level_dbfs=np.full(4, -28 if cry else -55, np.float32),
        )


def make_app(mailbox: Mailbox, **more) -> CrykitApp:
    options = {"source": SOURCE, "model": MODEL, "gate": GATE, "redraw_hz": None, **more}
    return CrykitApp(mailbox, now=lambda: at(64), **options)


async def hear(pilot: Pilot, mailbox: Mailbox, until_s: float) -> None:
    """Everything that the engine would say of the night up to `until_s`."""
    app = pilot.app
    assert isinstance(app, CrykitApp)
    for block in frames(until_s):
        mailbox(block)
    if until_s > FIRST.offset_s:
        mailbox(CryBegan(CryStarted("first", 20.0, 20.6, 0.9), at(20)))
        mailbox(CryEnded(FIRST, at(20)))
    if until_s > SECOND.detected_s:
        mailbox(CryBegan(SECOND, at(58)))
    mailbox(Progress(until_s, 0, 2560, 1.23, 0.0081, 0.0))
    app.refresh_from_mailbox()
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("until_s", [QUIET_S, CRYING_S], ids=["quiet", "crying"])
def test_how_it_looks(snap_compare, size: tuple[int, int], until_s: float) -> None:
    mailbox = Mailbox()

    async def prepare(pilot: Pilot) -> None:
        await hear(pilot, mailbox, until_s)

    assert snap_compare(make_app(mailbox), terminal_size=size, run_before=prepare)


def test_how_the_night_theme_and_banner_look(snap_compare) -> None:
    mailbox = Mailbox()

    async def prepare(pilot: Pilot) -> None:
        await pilot.press("t")
        await hear(pilot, mailbox, CRYING_S)

    app = make_app(mailbox, title_note="synthetic audio")
    assert snap_compare(app, terminal_size=(100, 30), run_before=prepare)


def test_how_trouble_looks(snap_compare) -> None:
    mailbox = Mailbox()

    async def prepare(pilot: Pilot) -> None:
        mailbox(AudioLost(10.0, 24_000, 24_000))
        await hear(pilot, mailbox, QUIET_S)
        error = DeviceError("the microphone 'nursery' stopped delivering sound; plug it in again")
        ended = (CryEnded(FIRST, at(20)),)
        mailbox(Finished(Summary("nursery", ended, (), 54.4, 24_000, 0.4, False, error)))
        app = pilot.app
        assert isinstance(app, CrykitApp)
        app.refresh_from_mailbox()
        await pilot.pause()

    assert snap_compare(make_app(mailbox), terminal_size=(100, 30), run_before=prepare)


async def test_the_state_follows_the_cry() -> None:
    mailbox = Mailbox()
    app = make_app(mailbox)
    async with app.run_test(size=(100, 30)) as pilot:
        panel = app.query_one(StatePanel)
        assert panel.word == "starting"
        await hear(pilot, mailbox, 10.0)
        assert (panel.word, panel.detail) == ("quiet", "no cry yet")
        await hear(pilot, mailbox, CRYING_S)
        assert (panel.word, panel.timer) == ("crying", "0:06")
        assert panel.detail == "crying since 03:12:58 (0:06)"
        mailbox(CryEnded(CryEvent("second", 58.0, 65.5, 0.9, 0.8, -30.0), at(58)))
        app.refresh_from_mailbox()
        assert (panel.word, panel.detail) == ("quiet", "last cry 03:12:58")
        assert panel.note == "lasted 0:07"


async def test_the_list_is_newest_first_and_c_clears_what_is_over() -> None:
    mailbox = Mailbox()
    app = make_app(mailbox)
    async with app.run_test(size=(100, 30)) as pilot:
        await hear(pilot, mailbox, CRYING_S)
        events = app.query_one(EventList)
        rows = [[str(cell) for cell in events.get_row_at(row)] for row in range(2)]
        assert rows[0][:2] == ["● 03:12:58", "now"]
        assert rows[1] == ["  03:12:20", "0:07", "0.97", "-31 dBFS"]
        await pilot.press("c")
        assert events.row_count == 1  # the cry that goes on stays
        mailbox(CryEnded(CryEvent("second", 58.0, 65.5, 0.9, 0.8, -30.0), at(58)))
        app.refresh_from_mailbox()
        await pilot.press("c")
        assert events.row_count == 0


async def test_keys() -> None:
    app = make_app(Mailbox())
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("t")
        assert app.palette is NIGHT and app.query_one(LevelMeter).palette is NIGHT
        await pilot.press("t")
        assert app.palette is CALM
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        app.refresh_from_mailbox()  # behind the help, the app goes on
        await pilot.press("q")
        assert not isinstance(app.screen, HelpScreen) and app.is_running
        await pilot.press("q")
    assert not app.is_running


async def test_losses_and_log_trouble_are_shown() -> None:
    mailbox = Mailbox()
    app = make_app(mailbox)
    async with app.run_test(size=(100, 30)) as pilot:
        mailbox(AudioLost(1.0, 8_000, 8_000))
        mailbox(StoreTrouble("cannot write the event log"))
        await hear(pilot, mailbox, 5.0)
        status = app.query_one(StatusBar)
        assert status.lost_samples == 8_000
        assert "cannot write the event log" in status.render_line(1).text
        mailbox(StoreRecovered("the event log is written again"))
        app.refresh_from_mailbox()
        assert "lost 0.50 s" in status.render_line(1).text
        assert "not a medical device" in status.render_line(0).text


def test_a_slow_screen_misses_frames_and_nothing_else() -> None:
    mailbox = Mailbox(max_frame_blocks=3)
    for block in list(frames(1.6)):
        mailbox(block)
        mailbox(Progress(block.first_sample / 16_000, 0, 2560, 1.0, 0.01, 0.0))
        mailbox(AudioLost(0.0, 1, block.first_sample))
    taken = mailbox.take()
    assert [m.first_sample for m in taken if isinstance(m, FrameBlock)] == [17920, 20480, 23040]
    assert sum(isinstance(m, Progress) for m in taken) == 1
    assert sum(isinstance(m, AudioLost) for m in taken) == 10
    assert mailbox.take() == []


def test_columns_hold_the_peak_and_never_change() -> None:
    history = History(0.04, 64)
    for block in frames(1.0):
        history.add(block)
    shown = history.probability(10).copy()
    assert len(shown) == history.columns == 3
    for block in frames(400.0):
        history.add(block)
    assert len(history.probability(10_000)) == 512 and history.log_mel(5).shape == (5, 64)
    assert history.probability(5).max() == np.float32(0.93)


def test_the_strip_puts_high_bands_above_and_stays_dark_in_silence() -> None:
    log_mel = np.full((6, 64), -3.0, np.float32)
    assert heat_levels(log_mel, 8).max() == 0
    log_mel[2, 60] = 2.0
    levels = heat_levels(log_mel, 8)
    assert np.argwhere(levels > 0).tolist() == [[2, 0]]
    assert heat_levels(np.zeros((0, 64), np.float32), 8).shape == (0, 8)


def test_every_word_that_is_shown_has_its_letters() -> None:
    for word in ("starting", "quiet", "crying", "ended", "stopped", "0123456789:"):
        for scale, rows in ((1, 5), (2, 9)):
            text = big_text(word, scale)
            assert len(text) == rows and len({len(row) for row in text}) == 1


class LossySource(GeneratedSource):
    """Half a second goes missing after the first second."""

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        yield Block(np.zeros(16_000, np.float32))
        yield Block(np.zeros(16_000, np.float32), lost_samples=8_000)


def test_the_engine_tells_losses_and_keeps_the_sources_time(bundle: Bundle, tmp_path: Path) -> None:
    heard: list = []
    path = tmp_path / "events.db"
    source = LossySource("lossy", silence, started_at=NIGHTFALL)
    store = EventStore(path)
    engine = Engine(source, bundle, open_runtime(bundle), ALWAYS, heard.append, store=store)
    engine.start()
    assert engine.join(30)
    assert [m for m in heard if isinstance(m, AudioLost)] == [AudioLost(1.0, 8_000, 8_000)]
    (ended,) = (m for m in heard if isinstance(m, CryEnded))
    assert (ended.start, ended.event.onset_s, ended.event.offset_s) == (NIGHTFALL, 0.0, 2.5)
    assert isinstance(heard[-1], Finished)
    assert heard[-1].summary.heard_s == 2.5 and heard[-1].summary.lost_samples == 8_000
    (event,) = read_events(path)
    assert event.offset_s == 2.5


def test_the_engine_survives_a_log_that_breaks(bundle: Bundle, tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events.db")
    store._db.execute("DROP TABLE event")
    heard: list = []
    source = LossySource("lossy", silence)
    engine = Engine(source, bundle, open_runtime(bundle), ALWAYS, heard.append, store=store)
    engine.start()
    assert engine.join(30)
    assert any(isinstance(m, StoreTrouble) for m in heard)
    assert any(isinstance(m, CryEnded) for m in heard) and engine.failure is None


class Terminal:
    """The app in a real terminal of its own."""

    def __init__(self, bundle_path: Path, sound_file: Path, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.controller, terminal = pty.openpty()
        os.environ.setdefault("TERM", "xterm-256color")
        crykit = str(Path(sys.executable).with_name("crykit"))
        words = [crykit, "listen", "--model", bundle_path, "--data-dir", data_dir]
        words += ["--input", sound_file, "--on-threshold", "1e-9", "--off-threshold", "1e-9"]
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        )
        os.close(terminal)
        self._open = True
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        # A terminal that nobody reads would stop the app's writes.
        while self._open:
            try:
                os.read(self.controller, 65536)
            except OSError:
                return

    def wait_for_cry(self) -> None:
        path = self.data_dir / "events.db"
        for _ in range(300):
            if path.exists() and list(read_events(path)):
                time.sleep(1.0)  # let the screen come up as well
                return
            time.sleep(0.1)
        raise AssertionError("no cry was logged")

    def close(self) -> None:
        self._open = False
        os.close(self.controller)


@pytest.mark.parametrize("how", ["q", "SIGTERM", "SIGHUP", "closed"])
def test_closing_the_app_in_mid_cry_loses_no_event(
    bundle_path: Path, sound_file: Path, tmp_path: Path, how: str
) -> None:
    terminal = Terminal(bundle_path, sound_file, tmp_path)
    try:
        terminal.wait_for_cry()
        if how == "q":
            os.write(terminal.controller, b"q")
        elif how == "closed":
            terminal.close()
            # The kernel sends this to the terminal's session when its window is gone.
            terminal.process.send_signal(signal.SIGHUP)
        else:
            terminal.process.send_signal(getattr(signal, how))
        _, err = terminal.process.communicate(timeout=20)
    finally:
        terminal.process.kill()
        if how != "closed":
            terminal.close()
    (event,) = read_events(tmp_path / "events.db")
    assert event.offset_s is not None and 0.3 < event.offset_s < 12
    assert b"Traceback" not in err, err.decode()
    assert terminal.process.returncode == 0
