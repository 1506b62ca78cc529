"""`crykit data audit`: does a manifest's split leak, and what tells its labels without the cry?

Leaks are groups that straddle splits and near-duplicate audio across splits: what is scored was
heard in training. Shortcuts do not leak, but a score on this manifest may stem from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crykit.dataset import Clip, read_clip, read_manifest
from crykit_train.data.fingerprint import Duplicate, FingerprintIndex
from crykit_train.data.shortcuts import Traits, shortcut_table, traits

Progress = Callable[[int, int, float], None]


def audit_manifest(
    manifest: str | Path, *, bootstrap: int = 500, progress: Progress | None = None
) -> dict[str, Any]:
    """Audit a manifest.

    Returns:
        ``groups`` and ``duplicates`` that straddle splits, ``alike``: near-duplicates of two
        groups in one split (which should be one group), ``shortcuts`` (`shortcut_table`), and
        ``leak``, whether anything straddles.

    Raises:
        InputError: the manifest or a clip is not usable, or there is no cry or nothing else.
    """
    clips = read_manifest(manifest, leaky=True)  # what straddles is to be told, not refused
    index = FingerprintIndex()
    found: list[Traits] = []
    for done, clip in enumerate(clips, 1):
        samples = read_clip(clip)
        index.add(samples)
        found.append(traits(samples, clip.path))
        if progress and (done % 32 == 0 or done == len(clips)):
            progress(done, len(clips), float("nan"))
    pairs = index.duplicates([clip.group + "\n" + clip.split for clip in clips], progress)
    across = [pair for pair in pairs if clips[pair.a].split != clips[pair.b].split]
    within = [pair for pair in pairs if clips[pair.a].split == clips[pair.b].split]
    torn = straddling_groups(clips)
    return {
        "manifest": str(manifest),
        "clips": len(clips),
        "groups_in_all": len({clip.group for clip in clips}),
        "hours": round(sum(trait.duration_s for trait in found) / 3600, 3),
        "leak": bool(torn or across),
        "groups": torn,
        "duplicates": [_pair(pair, clips) for pair in _by_strength(across)],
        "alike": [_pair(pair, clips) for pair in _by_strength(within)],
        "shortcuts": shortcut_table(found, clips, bootstrap=bootstrap),
    }


def straddling_groups(clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """Groups on more than one side, with their clips in each."""
    sides: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for clip in clips:
        sides[clip.group][clip.split] += 1
    return [
        {"group": group, "clips": dict(sorted(counts.items()))}
        for group, counts in sorted(sides.items())
        if len(counts) > 1
    ]


def report_lines(report: dict[str, Any], *, at_most: int = 20) -> list[str]:
    """The report for people."""
    lines = [
        f"{report['manifest']}: {report['clips']} clips of {report['groups_in_all']} groups, "
        f"{report['hours']} h"
    ]
    lines += _section("groups on two sides of a split", report["groups"], at_most, _group_line)
    lines += _section("near-duplicates across splits", report["duplicates"], at_most, _pair_line)
    lines += _section(
        "near-duplicates of two groups in one split (make them one group)",
        report["alike"],
        at_most,
        _pair_line,
    )
    lines += ["", "what tells a cry without hearing it: AUC [95 % interval over groups]"]
    for row in report["shortcuts"]:
        low, high = row["interval"]
        lines.append(
            f"  {row['verdict']:<7}{row['auc']:.3f} [{low:.3f}, {high:.3f}]  {row['meaning']}"
            f" ({row['direction']}: {row['median_cry']:g} against {row['median_rest']:g})"
        )
    lines += [
        "",
        "LEAK: scores on this split measure memory" if report["leak"] else "no leak found",
    ]
    return lines


def _section(
    title: str, rows: list[dict[str, Any]], at_most: int, line: Callable[[dict[str, Any]], str]
) -> list[str]:
    shown = [f"  {line(row)}" for row in rows[:at_most]]
    more = [f"  and {len(rows) - at_most} more"] if len(rows) > at_most else []
    return ["", f"{title}: {len(rows) or 'none'}", *shown, *more]


def _group_line(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{split} {n}" for split, n in row["clips"].items())
    return f"{row['group']}: {counts}"


def _pair_line(row: dict[str, Any]) -> str:
    return (
        f"{row['correlation']:.2f} over {row['overlap_s']:.1f} s, {row['offset_s']:+.2f} s: "
        f"{row['a']} ({row['a_split']}, {row['a_group']}) and "
        f"{row['b']} ({row['b_split']}, {row['b_group']})"
    )


def _by_strength(pairs: list[Duplicate]) -> list[Duplicate]:
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.a, pair.b))


def _pair(pair: Duplicate, clips: Sequence[Clip]) -> dict[str, Any]:
    a, b = clips[pair.a], clips[pair.b]
    return {
        "a": a.path.name,
        "a_group": a.group,
        "a_split": a.split,
        "a_event": a.event,
        "b": b.path.name,
        "b_group": b.group,
        "b_split": b.split,
        "b_event": b.event,
        "offset_s": round(pair.offset_s, 3),
        "correlation": pair.correlation,
        "overlap_s": pair.overlap_s,
    }
