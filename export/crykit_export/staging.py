"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from crykit.errors import UsageError


@contextlib.contextmanager
def staged_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a hidden folder beside `target`; rename it to `target` if the block succeeds.

    A killed run leaves only the hidden folder, which the next run for the same target removes.

    Raises:
        UsageError: `target` is there already and `replace` is not asked for.
    """
    _refuse_existing(target, replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    stage = _hidden(target, str(os.getpid()))
    stage.mkdir()
    try:
        yield stage
        _refuse_existing(target, replace)
        if target.exists():
            # A folder cannot be renamed over another: the old one steps aside first.
            old = _hidden(target, f"{os.getpid()}-old")
            target.rename(old)
            stage.rename(target)
            shutil.rmtree(old)
        else:
            stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _refuse_existing(target: Path, replace: bool) -> None:
    if target.exists() and not replace:
        raise UsageError(f"{target} is there already; name another or give --force")


def _hidden(target: Path, tag: str) -> Path:
    return target.parent / f".{target.name}.{tag}.partial"


def _sweep(target: Path) -> None:
    """Remove what killed runs left for this target."""
    for left in target.parent.glob(f".{target.name}.*.partial"):
        pid = left.name.removesuffix(".partial").rsplit(".", 1)[-1].split("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
