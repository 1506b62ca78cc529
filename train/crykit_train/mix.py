"""Averaging the weights of a detector before and after further training.

M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022: on the straight line from a
model to what was fine-tuned from it the loss stays low, and the middle is surer on what neither was
tuned for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from crykit.errors import InputError, UsageError
from crykit_train.models import LEAKY_STAMP, is_leaky, load_detector


@torch.no_grad()
def mix_detectors(before: Path, after: Path, share: float, out: Path) -> dict[str, Any]:
    """Write a run folder with ``(1 - share) * before + share * after``.

    Args:
        before, after: finished run folders or bundles of one shape, the second trained on from the
            first (or both from one start): weights that share no past average to noise.
        share: of ``after``, over 0 and under 1.
        out: a new folder.

    Returns:
        What its ``model.json`` says; scores and gate are left out, since none is measured.

    Raises:
        UsageError: the share is out of range, or the folder is in use.
        InputError: one is no detector, or the shapes differ.
    """
    if not 0 < share < 1:
        raise UsageError(f"--share {share:g}: expected more than 0 and less than 1")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty; choose another --out")
    (one, facts_one), (two, facts_two) = load_detector(before), load_detector(after)
    if one.config != two.config:
        raise InputError(
            f"{after}: is of another shape than {before}; mix a model with its own heir"
        )
    other = one.state_dict()
    for key, value in two.state_dict().items():
        if value.is_floating_point():
            value.lerp_(other[key], 1 - share)
    kept = ("name", "version", "licence", "description", "architecture", "training")
    leaky = is_leaky(facts_one) or is_leaky(facts_two)
    facts: dict[str, Any] = {**{key: facts_two[key] for key in kept}, "leaky": leaky}
    if leaky and not is_leaky({"description": facts["description"]}):
        facts["description"] += LEAKY_STAMP
    facts["training"]["mixed_with"] = {
        "name": facts_one["name"],
        "version": facts_one["version"],
        "share_of_it": round(1 - share, 4),
        "training": facts_one["training"],
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in two.state_dict().items()}, out / "model.safetensors")
    (out / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts
