"""MODEL_CARD.md, generated from the facts of the manifest so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CARD_NAME = "MODEL_CARD.md"


def model_card(fields: dict[str, Any], folder: Path) -> str:
    """The card of a bundle.

    Args:
        fields: the manifest's, without digests.
        folder: the staged bundle, for the sizes of its files.
    """
    sections = [
        _head(fields),
        _use(),
        _shape(fields),
        _evidence(fields),
        _scores(fields),
        _artefacts(fields, folder),
        _training(fields),
        _terms(fields),
        _limits(),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def encoder_card(fields: dict[str, Any], folder: Path) -> str:
    """The card of an encoder's bundle."""
    rows = [
        [
            c["runtime"],
            f"{c['file']}, {(folder / c['file']).stat().st_size / 1e6:.1f} MB",
            "any" if c["max_samples"] is None else f"{c['max_samples'] / 16_000:g} s",
            f"{max(c['scores'].values()):.2g}",
            f"{c['tolerance']:g}",
        ]
        for c in fields["clips"]
    ]
    header = ["runtime", "file", "longest clip", "from torch, of the largest value", "allowed"]
    training = fields["training"]
    shape = f"""## What it does

- In: whole recordings, mono, {fields["sample_rate_hz"]} Hz; the log-mel is part of the file.
- Out: `embedding`, {fields["embedding_size"]} numbers a recording, and `frames`, \
{fields["frame_size"]} numbers every {_ms(fields, "hop_samples"):g} ms.
- It has no state and detects nothing: a classifier on its embeddings is the user's.

Not a medical device."""
    trained = f"## Training\n\nObjective: {training['objective']}, stage: {training['stage']}." + (
        " Made with a leaky split: no score of it counts." if training["leaky"] else ""
    )
    artefacts = (
        f"## Artefacts\n\nEach agreed with torch on a synthetic clip.\n\n{_table(header, rows)}"
    )
    return "\n\n".join([_head(fields), shape, artefacts, trained, _terms(fields)]) + "\n"


def _head(fields: dict[str, Any]) -> str:
    return (
        f"# {fields['name']} {fields['version']}\n\n{fields['description']}. "
        f"Licence of the weights: {fields['licence']}. Exported {fields['created']}."
    )


def _use() -> str:
    return """## Intended use

To notice, on the device beside it, that an infant cries: for a caregiver's convenience, and for
research into cry detection. The sound stays on the device.

**Not a medical device.** It diagnoses nothing, it does not replace a caregiver's presence, and it
must not be the only thing that anyone relies on for a child's safety.

It does not say *why* a baby cries. Reasons: none claimed. Public recordings labelled with
parents' guesses do not carry reasons over to babies that were not heard in training."""


def _shape(fields: dict[str, Any]) -> str:
    rate = fields["sample_rate_hz"]
    gate = fields["gate"]
    return f"""## What it does

- In: mono audio at {rate} Hz, {_ms(fields, "step_samples"):g} ms at a time; the log-mel front end \
({fields["n_mels"]} bands) is part of the bundle.
- Out: a cry probability and a {fields["embedding_size"]}-number embedding every \
{_ms(fields, "frame_samples"):g} ms. No look-ahead; it waits for a step, \
{_ms(fields, "latency_samples"):g} ms.
- Events: on at {gate["on_threshold"]:g}, off at {gate["off_threshold"]:g}, at least \
{gate["min_on_ms"]:g} ms; gaps under {gate["merge_gap_ms"]:g} ms are bridged."""


def _ms(fields: dict[str, Any], name: str) -> float:
    return 1000.0 * fields[name] / fields["sample_rate_hz"]


def _evidence(fields: dict[str, Any]) -> str:
    rows = [
        [
            e["head"],
            e["metric"],
            f"{e['value']:.4f}",
            f"{e['ci95'][0]:.4f} to {e['ci95'][1]:.4f}",
            e["clips"],
            e["groups"],
            e["data"],
        ]
        for e in fields["evidence"]
    ]
    if not rows:
        return "## Evidence\n\nNo score is stated for this model, so none may be claimed."
    header = ["head", "metric", "value", "95% interval over groups", "clips", "groups", "data"]
    return (
        "## Evidence\n\nA group is a baby, an uploader or a recording; none is on two sides of the "
        f"split.\n\n{_table(header, rows)}"
    )


def _scores(fields: dict[str, Any]) -> str:
    """What `crykit train evaluate` measured, if it did."""
    metrics = fields["metrics"]
    rows: list[Sequence[Any]] = []
    clips = metrics.get("clips") or {}
    for name, found in clips.items():
        if not isinstance(found, dict):
            continue
        rows.append(_auc_row(f"AUC, {name.replace('_', ' ')}", found["auc"]))
        if name == "full_band":
            rows += [_auc_row(f"AUC, cry against {k}", v) for k, v in found["against"].items()]
    for name, found in (metrics.get("streams") or {}).items():
        recall = found["event_recall"]
        bouts = f"{found['found']} of {found['bouts']} bouts, " if recall is not None else ""
        rows.append(
            [
                f"streams {name}, {found['hours']:g} h",
                f"{bouts}time F1 {found['time_f1']:.3f}" if bouts else "no cry in them",
                f"{found['false_alarms_per_hour']:g} false alarms an hour "
                f"(95% upper bound {found['false_alarms_per_hour_upper95']:g})",
            ]
        )
    if not rows:
        return ""
    return (
        f"## Scores\n\nBy `crykit train evaluate`, on the {clips.get('split', 'held-out')} split; "
        "intervals over groups. The gate's settings were searched on validation streams; what else "
        "was looked at before they were kept, a run's own notes must tell.\n\n"
        + _table(["what", "value", "interval"], rows)
    )


def _auc_row(name: str, found: dict[str, Any]) -> list[Any]:
    low, high = found["ci95"]
    return [
        name,
        f"{found['value']:.4f}",
        f"{low:.4f} to {high:.4f}, {found['cry_groups']} groups with a cry",
    ]


def _artefacts(fields: dict[str, Any], folder: Path) -> str:
    rows: list[Sequence[Any]] = []
    for a in fields["artefacts"]:
        scores = a["scores"]
        rows.append(
            [
                a["runtime"],
                a["precision"],
                f"{_ms(fields | {k: v for k, v in a.items() if v}, 'step_samples'):g} ms",
                f"{a['network']}, {(folder / a['network']).stat().st_size / 1000:.0f} kB",
                f"{scores['golden_max_abs']:.2g}",
                f"{a['tolerance']['cry_probability_max_abs']:g}",
                *_losses(scores),
            ]
        )
    header = [
        "runtime",
        "precision",
        "step",
        "network",
        "max abs from torch",
        "allowed",
        "AUC lost",
        "time F1 lost",
        "false alarms an hour",
    ]
    return (
        "## Artefacts\n\nEach was replayed in its own runtime on the golden clip, a synthetic cry "
        "in synthetic noise, before the bundle was written. What a smaller precision loses is "
        f"measured against torch in fp32{_measured_on(fields)}.\n\n{_table(header, rows)}"
    )


def _losses(scores: dict[str, Any]) -> list[str]:
    """Of AUC, of time F1, and false alarms an hour on both sides; dashes for full precision."""
    if "time_f1_loss" not in scores:
        return ["-", "-", "-"]
    before, after = (
        scores["false_alarms_per_hour_torch_fp32"],
        scores["false_alarms_per_hour"],
    )
    return [
        f"{scores['clip_auc_loss']:+.4f}",
        f"{scores['time_f1_loss']:+.4f}",
        f"{after:.2f} (fp32 {before:.2f})",
    ]


def _measured_on(fields: dict[str, Any]) -> str:
    for scores in (a["scores"] for a in fields["artefacts"]):
        if "time_f1_loss" in scores:
            return (
                f", on {scores['clips']} {scores['split']} clips of {scores['groups']} groups and "
                f"{scores['stream_hours']:.1f} h of streams"
            )
    return ""


def _training(fields: dict[str, Any]) -> str:
    data = fields["training"].get("data") or []
    if not data:
        return "## Training data\n\nNone recorded: treat the weights as random."
    rows = [[d["source"], d["licence"], d["clips"], d.get("groups", "")] for d in data]
    return (
        "## Training data\n\nNo recording is part of the bundle; the licences are those that each "
        f"source states.\n\n{_table(['source', 'licence', 'clips', 'groups'], rows)}"
        f"{_taught(fields['training'])}"
    )


# What the weights' licence lets a user do, where it is one of these.
_TERMS = {
    "CC-BY-NC": "Non-commercial use alone, with attribution.",
    "CC-BY-SA": "Any use, commercial too, with attribution; changed weights keep this licence.",
    "CC-BY": "Any use, commercial too, with attribution.",
    "CC0": "Any use.",
    "Apache": "Any use, commercial too, with the licence's notice.",
}


def _terms(fields: dict[str, Any]) -> str:
    licence = str(fields["licence"])
    said = next((text for name, text in _TERMS.items() if licence.startswith(name)), None)
    allows = said or "See that licence; where it is unknown, ask before any use beyond trying it."
    return f"## What the licence allows\n\n{licence}: {allows}"


def _taught(training: dict[str, Any]) -> str:
    """Who taught the student beside labels, if anybody did."""
    taught = training.get("distilled_from")
    if not taught:
        return ""
    teachers = " and ".join(
        " ".join(str(t[k]) for k in ("kind", "name", "version") if k in t)
        for t in taught["teachers"]
    )
    return (
        f"\n\nBeside labels it learned from teachers: {teachers}. Of the clips that nobody had "
        f"verified, {taught['unverified_as_cry']} were learned as cries and "
        f"{taught['unverified_as_other']} as other sounds, on the teachers' word."
    )


def _limits() -> str:
    return """## Limits

- Trained on some hundreds of cries, most of them recorded by telephone at 8 kHz; babies,
  rooms and microphones that differ from those may be heard worse. No score by age, sex, skin or
  country is known.
- Laughs, playing children, birds, cats and strings are what it takes for cries most often. Faint
  cries under a loud floor are what it misses most often.
- A whimper, a premature baby's cry and a cry through a wall were hardly in the data."""


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in lines)
