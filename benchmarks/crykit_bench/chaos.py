"""`python -m crykit_bench.chaos`: kill -9 in random moments while the event log is written.

A child process opens the log, writes to it and tells through a pipe what it has written; the parent
kills it and looks. Three moments take turns: while events are written, while the log is opened, and
while one of the first version is migrated. A kill takes the process, not the machine: what it shows
is that no order of writes leaves a log that cannot be read, not what a disk does in a power cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from crykit_app.logbook import read_events
from crykit_app.schema import VERSION_1
from crykit_app.store import EventStore

LONGEST_MS = {"writing": 120.0, "opening": 12.0, "migrating": 25.0}
"""A kill comes at a moment drawn evenly up to this: writing, opening and migrating last so long."""

OLD_EVENTS = 300


@dataclass
class Outcome:
    """What a run of kills came to."""

    seed: int
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LONGEST_MS, 0))
    acknowledged_events: int = 0
    events_in_log: int = 0
    corrupt_databases: int = 0
    lost_events: int = 0
    left_over_files: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not (self.corrupt_databases or self.lost_events or self.left_over_files)


class Chaos:
    """Kills writers of a log in `folder`, `kill` by `kill`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.outcome = Outcome(seed)
        self._folder = folder
        self._path = folder / "events.db"
        self._random = random.Random(seed)
        self._acknowledged: dict[str, str] = {}
        self._old = folder / "old.db"
        _write_old_log(self._old)

    def kill(self, phase: str) -> None:
        """One kill while `phase`, and a look at what is left."""
        self.outcome.kills[phase] += 1
        number = sum(self.outcome.kills.values())
        if phase == "migrating":
            self._kill_migration(number)
        else:
            told = self._run_and_kill(lambda say: write_for_ever(self._path, number, say), phase)
            self._check(self._path, told)
            self._acknowledged |= told

    def finish(self) -> Outcome:
        """Look once more at everything that was ever acknowledged."""
        self._check(self._path, self._acknowledged)
        self.outcome.acknowledged_events = len(self._acknowledged)
        self.outcome.events_in_log = sum(1 for _ in read_events(self._path))
        self.outcome.left_over_files += sum(1 for _ in self._folder.glob("**/*.part"))
        return self.outcome

    def _kill_migration(self, number: int) -> None:
        place = self._folder / f"migration-{number}"
        place.mkdir()
        path = place / "events.db"
        shutil.copy(self._old, path)
        expected = {f"old{index:04}": "closed" for index in range(OLD_EVENTS)}
        self._run_and_kill(lambda say: EventStore(path).close(), "migrating")
        self._check(path, expected)
        self.outcome.left_over_files += sum(1 for _ in place.glob(".*.part"))
        shutil.rmtree(place)

    def _run_and_kill(self, work: Callable[[Say], object], phase: str) -> dict[str, str]:
        """Run `work` in a child until the kill; returns what it said it had written."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _be_killed(work, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            pipe.read(1)  # it is about to begin
            time.sleep(self._random.uniform(0, LONGEST_MS[phase]) / 1000)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            # A line that was cut off was not told.
            lines = pipe.read().decode().split("\n")[:-1]
        return {event: state for event, state in (line.split() for line in lines)}

    def _check(self, path: Path, expected: dict[str, str]) -> None:
        """Open the log as the next listener would, and look for everything in `expected`."""
        expected = dict(expected)
        if not path.exists():
            self.outcome.lost_events += len(expected)
            return
        sound = _is_sound(path)
        store = EventStore(path)
        store.close()
        self.outcome.corrupt_databases += not sound or store.set_aside is not None
        for event in read_events(path):
            state = expected.pop(event.id, None)
            self.outcome.lost_events += state == "closed" and event.offset_s is None
        self.outcome.lost_events += len(expected)


Say = Callable[[str, str], None]


def write_for_ever(path: Path, number: int, say: Say) -> None:
    """What a listener writes, as fast as it can; `say` each event once it is on the disk."""
    now = datetime.now(UTC)
    store = EventStore(path)
    session = f"session{number}"
    store.begin_session(session, "microphone", "model", now, "microphone")
    index = 0
    while True:
        event = f"{number:05}-{index:05}"
        store.open_event(session, event, float(index), now, now)
        say(event, "opened")
        store.listened(session, now, datetime.now(UTC))
        store.close_event(
            event,
            onset_s=float(index),
            offset_s=index + 1.0,
            peak_probability=0.9,
            mean_probability=0.8,
            level_dbfs=-30.0,
        )
        say(event, "closed")
        store.lost(session, float(index), now, 0.1)
        index += 1


def _is_sound(path: Path) -> bool:
    """What SQLite's thorough check says."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return False


def _be_killed(work: Callable[[Say], object], writer: int) -> None:
    """In the child: work, and wait for the end. Never returns."""
    try:
        os.write(writer, b"\n")
        work(lambda event, state: _say(writer, event, state))
        time.sleep(60)
    except BaseException as error:
        sys.stderr.write(f"the writer failed: {error}\n")
    finally:
        os._exit(1)


def _say(writer: int, event: str, state: str) -> None:
    os.write(writer, f"{event} {state}\n".encode())


def _write_old_log(path: Path) -> None:
    """A log as the first release left it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1)
        database.execute(
            "INSERT INTO session (id, began, source, model) VALUES ('s', ?, 'mic', 'm')", (now,)
        )
        rows = [(f"old{index:04}", now, index, index + 1.0) for index in range(OLD_EVENTS)]
        database.executemany(
            "INSERT INTO event (id, session_id, logged, onset_s, offset_s) "
            "VALUES (?, 's', ?, ?, ?)",
            rows,
        )
        database.execute("PRAGMA user_version = 1")
        database.commit()
        database.execute("PRAGMA journal_mode = WAL")


@click.command()
@click.option("--kills", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Draws the moments.")
@click.option("--folder", type=click.Path(path_type=Path), help="On this disk; default: the temp.")
def command(kills: int, seed: int, folder: Path | None) -> None:
    """Kill a writer of the event log KILLS times; one JSON object, exit 1 if anything was lost."""
    if not hasattr(os, "fork"):
        raise click.UsageError("this system cannot fork a process")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crykit-chaos-", dir=folder) as place:
        chaos = Chaos(Path(place), seed)
        for index in range(kills):
            # Six in ten while events are written: that is what a listener does all night.
            chaos.kill(("writing", "opening", "writing", "migrating", "writing")[index % 5])
        outcome = chaos.finish()
    outcome.seconds = round(time.monotonic() - began, 1)
    click.echo(json.dumps({"ok": outcome.ok, **asdict(outcome)}))
    sys.exit(0 if outcome.ok else 1)


if __name__ == "__main__":
    command()
