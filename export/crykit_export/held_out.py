"""Held-out sound that shows what a smaller precision costs: labelled clips, and streams."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crykit.dataset import Clip, read_manifest
from crykit.errors import InputError, UsageError
from crykit.scoring import Span, read_reference

SPLIT = "val"
AUDIO_SUFFIXES = (".flac", ".wav")
HOW = (
    "give --calibration MANIFEST.csv (its train split calibrates, its val split measures) and "
    "--streams DIR, which `crykit train streams --manifest MANIFEST.csv --split val --hours 6 "
    "-o DIR` makes"
)


@dataclass(frozen=True)
class Stream:
    """A long recording and its cries, merged to bouts."""

    audio: Path
    reference: list[Span]


@dataclass(frozen=True)
class HeldOut:
    """What loss is measured on.

    Args:
        manifest: of the clips.
        clips: of the val split, those whose event is known.
        streams: in the order of their names.
        stream_groups: that the streams' cries come from; none where their truth does not say.
        stream_split: that those groups are in: "val", "test", or "unknown" to this manifest.
    """

    manifest: Path
    clips: list[Clip]
    streams: list[Stream]
    stream_groups: int
    stream_split: str

    @property
    def labels(self) -> list[bool]:
        return [clip.event == "cry" for clip in self.clips]

    @property
    def groups(self) -> list[str]:
        return [clip.group for clip in self.clips]


def read_held_out(manifest: Path | None, streams: Path | None, what: str) -> HeldOut:
    """Clips and streams, checked before any work is done.

    Args:
        what: needs them, for the message: "int8", say.

    Raises:
        UsageError: one of the two was not given.
        InputError: no labelled val clips of both kinds, no stream with a cry, or a stream made of
            groups that were trained on.
    """
    if manifest is None or streams is None:
        raise UsageError(f"{what} needs held-out sound to be measured on: {HOW}")
    if manifest.is_dir():
        raise InputError(f"{manifest}: {what} needs labelled clips, not a folder: {HOW}")
    known = read_manifest(manifest)
    clips = [c for c in known if c.split == SPLIT and c.event != "unverified"]
    cries = sum(clip.event == "cry" for clip in clips)
    if not 0 < cries < len(clips):
        raise InputError(
            f"{manifest}: {what} is measured on cries and other sounds of the {SPLIT} split; it "
            f"has {cries} and {len(clips) - cries}: {HOW}"
        )
    found = find_streams(streams)
    if not any(stream.reference for stream in found):
        raise InputError(f"{streams}: no stream here has a cry to be found: {HOW}")
    groups = _cry_groups(found)
    return HeldOut(manifest, clips, found, len(groups), _split_of(groups, known, streams))


def find_streams(folder: Path) -> list[Stream]:
    """Every NAME.flac or NAME.wav of a folder that has its truth, NAME.csv, beside it.

    Raises:
        InputError: there is none, or a truth cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of streams, NAME.flac beside NAME.csv")
    audio = sorted(p for p in folder.iterdir() if p.suffix in AUDIO_SUFFIXES)
    pairs = [(path, path.with_suffix(".csv")) for path in audio]
    found = [Stream(path, read_reference(truth)) for path, truth in pairs if truth.is_file()]
    if not found:
        raise InputError(f"{folder}: no stream here; expected NAME.flac beside NAME.csv: {HOW}")
    return found


def _cry_groups(streams: Iterable[Stream]) -> set[str]:
    groups: set[str] = set()
    for stream in streams:
        with stream.audio.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
            groups |= {r.get("group") or "" for r in csv.DictReader(file) if r["event"] == "cry"}
    return groups - {""}


def _split_of(groups: set[str], known: list[Clip], folder: Path) -> str:
    splits = {clip.group: clip.split for clip in known}
    heard = sorted(group for group in groups if splits.get(group) == "train")
    if heard:
        raise InputError(
            f"{folder}: {len(heard)} groups of these streams were trained on, {heard[0]!r} among "
            f"them; loss must be measured on others: {HOW}"
        )
    sides = {splits.get(group, "unknown") for group in groups}
    return sides.pop() if len(sides) == 1 else "unknown"
