"""What is told while the bench runs: a bar on a terminal, else lines; both on stderr."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


class Progress(Protocol):
    """Told what happens now, and how much of that is done: 0 to 1, None where nobody knows."""

    def say(self, what: str, share: float | None = None) -> None: ...


class Silent:
    """Tells nobody."""

    def say(self, what: str, share: float | None = None) -> None:
        pass


class Lines:
    """A line a stage, such as `timing`, and not one a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""

    def say(self, what: str, share: float | None = None) -> None:
        stage = what.partition(":")[0]
        if stage != self._stage:
            self._stage = stage
            self._console.print(stage, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """A bar that starts anew with each stage."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("", total=None)

    def say(self, what: str, share: float | None = None) -> None:
        total = None if share is None else 1.0
        self._bar.update(self._task, description=what, completed=share or 0.0, total=total)


@contextmanager
def progress_on(console: Console) -> Generator[Progress]:
    """A bar while the block runs, gone afterwards, or lines where there is no terminal."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield Bar(bar)
