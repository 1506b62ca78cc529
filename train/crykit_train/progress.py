"""A progress bar on standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """Yields ``update(step, steps, loss)``; a loss that is no number is not shown."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")

        def update(step: int, steps: int, loss: float) -> None:
            note = f", loss {loss:.4f}" if math.isfinite(loss) else ""
            bar.update(task, completed=step, total=steps, note=note)

        yield update
