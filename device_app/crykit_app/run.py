"""The two ways to run the engine: behind the terminal app, or as JSON lines.

Both take an unopened source, an opened bundle and runtime, and an optional open event log; both
return a `Summary` when everything is flushed and stored, whichever way they were ended: the end of
the sound, a key, Ctrl-C, SIGTERM, or a closed terminal.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import BinaryIO

from crykit.bundle import Bundle
from crykit.gate import GateSettings
from crykit.runtime import Runtime
from crykit_app.engine import Engine
from crykit_app.messages import Mailbox, Summary
from crykit_app.sources import Source
from crykit_app.store import EventStore

OnFinish = Callable[[Summary], None]

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def run_headless(
    source: Source,
    *,
    bundle: Bundle,
    runtime: Runtime,
    gate: GateSettings,
    store: EventStore | None = None,
    on_finish: OnFinish | None = None,
    out: BinaryIO | None = None,
    status_every_s: float = 60.0,
) -> Summary:
    """Listen until the source ends or a signal comes; one JSON line an event on `out` (stdout).

    Each line is flushed as it happens. `gate` is usually `bundle.manifest.gate`. `store` is closed
    at the end. `on_finish` is called with the summary before anything is raised.
    Raises what ended it early: the source's `CrykitError`, `BrokenPipeError` or `OSError` from
    `out`, `KeyboardInterrupt` after SIGINT. SIGTERM and SIGHUP are an ordinary end.
    """
    from crykit_app.lines import LineWriter

    writer = LineWriter(out or sys.stdout.buffer, source, bundle, runtime, status_every_s)
    source.open(bundle.manifest.sample_rate_hz)
    engine = Engine(source, bundle, runtime, gate, writer, store=store)
    with _stopped_by_signals(engine) as caught:
        engine.start()
        while not engine.join(0.5):
            pass
    return _conclude(engine, on_finish, interrupted=signal.SIGINT in caught)


def run_app(
    source: Source,
    *,
    bundle: Bundle,
    runtime: Runtime,
    gate: GateSettings,
    store: EventStore | None = None,
    on_finish: OnFinish | None = None,
    title_note: str | None = None,
    close_at_end: bool = False,
) -> Summary:
    """Show the terminal app until the user closes it (or the sound ends, with `close_at_end`).

    `title_note` is a banner that stays in sight ("synthetic audio"). `on_finish` is called with the
    summary after the terminal is restored, so it may print. Raises the source's `CrykitError` if
    that ended the session, before or while the app was open.
    """
    from crykit_app.app import CrykitApp, ModelInfo

    source.open(bundle.manifest.sample_rate_hz)
    mailbox = Mailbox()
    engine = Engine(source, bundle, runtime, gate, mailbox, store=store)
    app = CrykitApp(
        mailbox,
        source=source,
        model=ModelInfo.of(bundle, runtime),
        gate=gate,
        title_note=title_note,
        close_at_end=close_at_end,
    )
    with _stopped_by_signals(engine, app.close_from_signal):
        engine.start()
        try:
            app.run()
        finally:
            # However the screen ended, the cry that is going on is closed and stored.
            engine.stop()
            engine.join()
    return _conclude(engine, on_finish)


def _conclude(engine: Engine, on_finish: OnFinish | None, interrupted: bool = False) -> Summary:
    summary = engine.summary
    if summary is None:
        raise engine.failure or RuntimeError("the engine ended without a summary")
    if on_finish is not None and engine.failure is None:
        on_finish(summary)
    if engine.failure is not None:
        raise engine.failure
    if summary.error is not None:
        raise summary.error
    if interrupted:
        raise KeyboardInterrupt
    return summary


@contextlib.contextmanager
def _stopped_by_signals(
    engine: Engine, also: Callable[[], None] | None = None
) -> Generator[set[int]]:
    """Turn the signals that end a program into `engine.stop`; yields those that came.

    The second of a kind has its usual effect again, in case the first does not help.
    """
    caught: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(number: int, _frame: object) -> None:
        caught.add(number)
        signal.signal(number, before[number] or signal.SIG_DFL)
        engine.stop()
        if also is not None:
            also()

    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield caught
    finally:
        for number in numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)
