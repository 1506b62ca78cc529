"""Whole files or none: written aside, then renamed into place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast


@contextmanager
def write_aside(path: str | Path) -> Generator[BinaryIO]:
    """Open a hidden neighbour of `path` for writing; it becomes `path` when the block succeeds.

    On any exception, Ctrl-C included, the neighbour is removed and `path` stays as it was. A pipe
    or a device is simply written to.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        # A pipe or a device (/dev/stdout) is written to; renaming would put a file in its place.
        with open(target, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(target))  # a link stays a link
    descriptor, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=".part"
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode_for(target))
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _mode_for(target: Path) -> int:
    """The permissions the file had, or those a plain open would give (mkstemp gives 0600)."""
    with suppress(OSError):
        return target.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
