"""Accuracy of a row: clip AUC with its interval, and events on streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crykit.dataset import Clip, read_manifest
from crykit.errors import InputError
from crykit.scoring import (
    group_bootstrap_auc,
    poisson_upper_bound,
    read_reference,
    score_events,
    total,
)

SPLIT = "test"
AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")


def labelled(manifest: Path, split: str) -> list[Clip]:
    """Clips of a split whose event is known, in the manifest's order."""
    return [c for c in read_manifest(manifest) if c.split == split and c.event != "unverified"]


@dataclass(frozen=True)
class ClipTruth:
    """Which clips of the test split are cries, and of whom."""

    manifest: Path
    labels: list[bool]
    groups: list[str]

    @classmethod
    def read(cls, manifest: Path) -> ClipTruth:
        """Raises InputError where the split has only one class."""
        clips = labelled(manifest, SPLIT)
        labels = [clip.event == "cry" for clip in clips]
        if not any(labels) or all(labels):
            raise InputError(
                f"{manifest}: clip AUC needs cries and other sounds of the {SPLIT} split; "
                f"it has {sum(labels)} and {len(labels) - sum(labels)}"
            )
        return cls(manifest, labels, [clip.group for clip in clips])

    def score(self, scores: list[float]) -> dict[str, Any]:
        value, low, high, groups = group_bootstrap_auc(self.labels, scores, self.groups)
        return {
            "auc": value,
            "ci95": [low, high],
            "groups": groups,
            "clips": len(self.labels),
            "cries": sum(self.labels),
            "cry_groups": len({g for g, cry in zip(self.groups, self.labels, strict=True) if cry}),
            "split": SPLIT,
            "manifest": self.manifest.name,
        }


@dataclass(frozen=True)
class StreamTruth:
    """Recordings with a CSV of their events beside them."""

    audio: list[Path]
    truth: list[Path]

    @classmethod
    def read(cls, folder: Path) -> StreamTruth:
        """Raises InputError where no recording has a truth."""
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder of streams, NAME.flac beside NAME.csv")
        pairs = [
            (audio, csv)
            for csv in sorted(folder.glob("*.csv"))
            for suffix in AUDIO_SUFFIXES
            if (audio := csv.with_suffix(suffix)).is_file()
        ]
        if not pairs:
            raise InputError(f"{folder}: no stream here; expected NAME.flac beside NAME.csv")
        return cls([a for a, _ in pairs], [c for _, c in pairs])

    def score(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        scores = [
            score_events(read_reference(csv), heard["events"], heard["duration_s"])
            for csv, heard in zip(self.truth, found, strict=True)
        ]
        all_told = total(scores)
        hours = all_told.duration_s / 3600.0
        return {
            "recall": all_told.recall,
            "bouts": all_told.ref,
            "found": all_told.hit,
            "time_f1": all_told.time_f1,
            "false_alarms": all_told.false_alarms,
            "false_alarms_per_hour": all_told.false_alarms_per_hour,
            "false_alarms_per_hour_upper95": poisson_upper_bound(all_told.false_alarms, hours),
            "delay_median_s": all_told.delay_median_s,
            "hours": hours,
            "streams": len(self.audio),
            "folder": self.audio[0].parent.name,
        }
