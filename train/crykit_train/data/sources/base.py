"""What an importer is given and what it finds."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crykit.errors import InputError, UsageError

_READ = ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .w64"
_NEED_FFMPEG = ".m4a .mp4 .webm .3gp .amr .aac"
AUDIO_SUFFIXES = frozenset(f"{_READ} {_NEED_FFMPEG}".split())


@dataclass(frozen=True)
class ImportOptions:
    """Where a data set lies, and what only the user can say about it."""

    root: Path
    audio: Path | None = None
    group_pattern: str = ""
    events: dict[str, str] = field(default_factory=dict[str, str])
    licence: str = ""

    @property
    def audio_root(self) -> Path:
        return self.audio or self.root


@dataclass(frozen=True)
class Found:
    """One clip of a data set. ``published_split`` is "" where the source has none."""

    path: Path
    event: str
    group: str
    source: str
    url: str = ""
    licence: str = "none stated"
    attribution: str = ""
    orig_label: str = ""
    reason: str = ""
    published_split: str = ""
    extra: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class Findings:
    """The clips of a data set, and how many were left out for which reason."""

    clips: list[Found] = field(default_factory=list[Found])
    left_out: Counter[str] = field(default_factory=Counter[str])
    notes: list[str] = field(default_factory=list[str])


def audio_files(folder: Path) -> Iterator[Path]:
    """Every sound file under a folder, in a fixed order.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the unpacked data set")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            yield path


def find_file(root: Path, relative: str) -> Path:
    """A file of the published layout, at the root or one folder below (an archive's top folder).

    Raises:
        InputError: it is in neither place.
    """
    for candidate in (root / relative, *sorted(root.glob(f"*/{relative}"))):
        if candidate.is_file():
            return candidate
    raise InputError(f"{root}: expected {relative} in it; give the folder of the unpacked data set")


def read_rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            missing = [name for name in needed if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{path}: expected columns {', '.join(needed)}; {', '.join(missing)} missing"
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None


def compiled(pattern: str) -> re.Pattern[str]:
    """A user's pattern with one group.

    Raises:
        UsageError: no regular expression, or without a group.
    """
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group-pattern {pattern!r}: no regular expression ({error})") from None
    if found.groups < 1:
        raise UsageError(
            f"--group-pattern {pattern!r}: put the part that names the group in parentheses"
        )
    return found
