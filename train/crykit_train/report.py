"""`crykit train evaluate`: every score of a run, from clips and streams that it has not heard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crykit.dataset import Clip, read_manifest
from crykit.errors import InputError
from crykit.gate import GateSettings
from crykit.nn.student import CryStudent
from crykit_train.evaluate import TOP_FRACTION, clip_scores, summarise_clips
from crykit_train.models import is_leaky, load_run
from crykit_train.reasons import reason_evidence
from crykit_train.streams import choose_gate, read_streams, summarise_streams

Progress = Callable[[int, int, float], None]

TELEPHONE_HZ = 3800.0
QUIET_DB = -20.0
NAN = float("nan")


def evaluate_run(
    run: Path,
    *,
    manifest: Path | None,
    split: str = "test",
    streams: Sequence[Path] = (),
    gate_streams: Sequence[Path] = (),
    false_alarms_per_hour: float = 0.5,
    leave_out: str | None = None,
    negatives_of: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a run and write what was found into its ``model.json``.

    Args:
        manifest: clips; those of ``split`` are scored as they are, low-passed, and quiet.
        streams: folders of streams to score with the run's gate.
        gate_streams: folders of validation streams; if given, the gate is chosen on them first.
        false_alarms_per_hour: how many the gate may give on those.
        leave_out: score this source's clips of every split; the run must not have heard it.
        negatives_of: a source whose test clips stand in for the negatives of ``leave_out``.
    """
    model, facts = load_run(run)
    scores: dict[str, Any] = {"leaky": is_leaky(facts)}

    def update(done: int, of: int) -> None:
        if progress:
            progress(done, of, NAN)

    if leave_out and manifest:
        scores["left_out"] = _left_out(model, facts, manifest, leave_out, negatives_of)
    elif manifest:
        clips = read_manifest(manifest)
        scores["clips"] = _clips(model, clips, split, facts)
        reasons = reason_evidence(model, clips)
        if reasons is not None:
            scores["reasons"] = reasons
            facts["evidence"].append(reasons)
    if gate_streams:
        validation = read_streams(gate_streams, model, update)
        gate = choose_gate(
            validation, max_false_alarms_per_hour=false_alarms_per_hour, update=update
        )
        facts["gate"] = msgspec.to_builtins(gate)
        scores["gate"] = facts["gate"]
        scores["gate_streams"] = summarise_streams(validation, gate)
    for folder in streams:
        found = summarise_streams(
            read_streams([folder], model, update), GateSettings(**facts.get("gate", {}))
        )
        scores.setdefault("streams", {})[folder.name] = found
    facts.setdefault("metrics", {}).update(scores)
    aside = run / "model.json.partial"
    aside.write_text(json.dumps(facts, indent=2) + "\n")
    os.replace(aside, run / "model.json")
    return scores


def _clips(
    model: CryStudent, clips: list[Clip], split: str, facts: dict[str, Any]
) -> dict[str, Any]:
    wanted = [c for c in clips if c.split == split and c.event != "unverified"]
    validation = [c for c in clips if c.split == "val" and c.event != "unverified"]
    plain = clip_scores(model, wanted)
    found = {
        "split": split,
        "full_band": summarise_clips(wanted, plain),
        "low_passed_3800_hz": summarise_clips(
            wanted, clip_scores(model, wanted, low_pass_hz=TELEPHONE_HZ)
        ),
        "quiet_20_db": summarise_clips(wanted, clip_scores(model, wanted, gain_db=QUIET_DB)),
    }
    auc = found["full_band"]["auc"]
    facts["clip"] = {
        "top_fraction": TOP_FRACTION,
        "threshold": _clip_threshold(validation, clip_scores(model, validation)),
    }
    facts["evidence"] = [
        {
            "head": "cry",
            "metric": "auc",
            "value": auc["value"],
            "ci95": auc["ci95"],
            "groups": auc["cry_groups"],
            "clips": auc["clips"],
            "data": f"{split} split, groups not heard in training; groups counts those with a cry",
        }
    ]
    return found


def _clip_threshold(clips: Sequence[Clip], scores: np.ndarray) -> float:
    """The clip score at which validation balanced accuracy is highest."""
    is_cry = np.array([c.event == "cry" for c in clips])
    if is_cry.all() or not is_cry.any():
        return 0.5
    candidates = np.unique(np.round(scores, 3))
    balanced = [(scores[is_cry] >= t).mean() + (scores[~is_cry] < t).mean() for t in candidates]
    best = np.flatnonzero(np.array(balanced) >= max(balanced) - 1e-9)
    return float(candidates[best[len(best) // 2]])


def _left_out(
    model: CryStudent,
    facts: dict[str, Any],
    manifest: Path,
    source: str,
    negatives_of: str | None,
) -> dict[str, Any]:
    heard = {entry["source"] for entry in facts["training"]["data"]}
    if source in heard:
        raise InputError(
            f"the run was trained on {source}; train it with "
            f"""--set 'data.exclude_sources=["{source}"]' before it is scored on that source"""
        )
    clips = [c for c in read_manifest(manifest) if c.event != "unverified"]
    cries = [c for c in clips if c.source == source and c.event == "cry"]
    if negatives_of:
        others = [c for c in clips if c.source == negatives_of and c.split == "test"]
    else:
        others = [c for c in clips if c.source == source]
    wanted = cries + [c for c in others if c.event != "cry"]
    scores = clip_scores(model, wanted)
    return {
        "source": source,
        "negatives_of": negatives_of or source,
        **summarise_clips(wanted, scores),
    }
