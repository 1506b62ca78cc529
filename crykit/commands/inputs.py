"""Several files in, one stream out: the bad ones are named, the good ones are done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import click

from crykit.errors import InputError


@contextmanager
def open_output(path: str | None) -> Generator[BinaryIO]:
    """Standard output, or a file that appears whole or not at all."""
    from crykit.files import write_aside

    if path is None or path == "-":
        yield sys.stdout.buffer
    else:
        with write_aside(path) as file:
            yield file


def each_file(files: Sequence[str], work: Callable[[str], None]) -> int:
    """Call `work` with every file and return how many could not be read.

    A single file's error is raised as it is, so that nothing is written in its name.
    """
    if len(files) == 1:
        work(files[0])
        return 0
    failed = 0
    for path in files:
        try:
            work(path)
        except InputError as error:
            failed += 1
            click.echo("crykit: " + " ".join(str(error).split()), err=True)
    if failed == len(files):
        raise InputError(f"none of the {failed} files could be read")
    return failed
