"""Recipes: a short TOML file that fixes a training run; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from crykit.errors import InputError, UsageError
from crykit.nn.student import StudentConfig

Recipe = TypeVar("Recipe", bound=msgspec.Struct)


class DataRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clips of the manifest are used."""

    manifest: str = ""
    exclude_sources: tuple[str, ...] = ()
    exclude_events: tuple[str, ...] = ("unverified",)
    # "commercial" keeps only clips whose licence column allows commercial use.
    licences: Literal["any", "commercial"] = "any"
    bed_events: tuple[str, ...] = ("noise", "silence")
    # Clips labelled cry that are all but silent, or in which no voice shows, are left out.
    suspect_cry_dbfs: float = -50.0
    suspect_cry_tonal_fraction: float = 0.10


class ComposeRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How sequences are composed; levels in dBFS, ratios in dB, shares from 0 to 1."""

    sequence_s: float = 8.0
    cry_share: float = 0.5
    whole_clip_share: float = 0.2
    negatives_mean: float = 2.0
    overlap_share: float = 0.35
    level_dbfs: tuple[float, float] = (-60.0, -10.0)
    cry_snr_db: tuple[float, float] = (-5.0, 30.0)
    negative_snr_db: tuple[float, float] = (-5.0, 35.0)
    floor_dbfs: tuple[float, float] = (-72.0, -35.0)
    # A share of the floors is that of a quiet bedroom, falling by some 6 dB an octave, and a share
    # of the cries is faint.
    bedroom_share: float = 0.0
    bedroom_dbfs: tuple[float, float] = (-66.0, -46.0)
    faint_cry_share: float = 0.0
    faint_cry_snr_db: tuple[float, float] = (-3.0, 10.0)
    reverb_share: float = 0.4
    equalise_share: float = 0.6
    equalise_db: float = 8.0
    low_pass_share: float = 0.45
    low_pass_all_share: float = 0.25
    speed_share: float = 0.5
    cry_speed: tuple[float, float] = (0.88, 1.14)
    negative_speed: tuple[float, float] = (0.8, 1.25)
    clipping_share: float = 0.06
    # How often a class of negatives is drawn, before hardness; a class not named weighs 1.
    class_weights: dict[str, float] = msgspec.field(
        default_factory=lambda: {
            "laugh": 2.0,
            "children": 2.0,
            "animal": 2.0,
            "music": 1.5,
            "silence": 0.3,
        }
    )


class TrainRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimisation."""

    seed: int = 1
    rounds: int = 60
    sequences_per_round: int = 1024
    passes_per_round: int = 2
    batch: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    warm_up_steps: int = 200
    average_decay: float = 0.998
    threads: int = 2
    validate_every_rounds: int = 6
    # Weights and activations are rounded as int8 rounds them while the network learns, so that it
    # comes to bear it. For a few last rounds, from a finished run or a bundle.
    quantisation_aware: bool = False
    # Share of the time that a baby cries where the model will be used. Composed sequences hold far
    # more of it, so the head's bias is moved from their share to this one when training ends.
    cry_prior: float = 0.015


class TeacherRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One teacher of an ensemble.

    ``yamnet``: a yamnet.tflite file; ``encoder``: the folder of a pre-trained encoder; on either a
    logistic regression is fitted. ``detector``: a run folder or bundle, whose frames are taken.
    """

    kind: Literal["yamnet", "encoder", "detector"]
    path: str = ""
    weight: float = 1.0


class DistilRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the student learns from teachers, beside labels."""

    teachers: tuple[TeacherRecipe, ...] = ()
    # A labelled frame's target: this share its label, the rest what the teachers hear.
    label_share: float = 0.9
    # What teachers hear is sharpened: their log-odds times this. Targets that stay soft cost the
    # student its sureness, and it is the sure end that a low rate of false alarms needs.
    sharpness: float = 4.0
    # Unlabelled clips (event "unverified") with a teachers' score over the first are learned from
    # as cries, under the second as other sounds; those between are left out.
    unverified_cry: float = 0.75
    unverified_other: float = 0.05
    # The cosine loss between the student's embedding and a YAMNet teacher's on the mixture.
    embedding_weight: float = 0.0
    embedding_windows: int = 3


class DetectorRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole `crykit train detector` or `crykit train distill` run."""

    name: str = "cry-student"
    version: str = "0.1.0"
    # Of the weights. It follows from the recordings: say the strictest of theirs.
    licence: str = "unknown"
    description: str = "Streaming infant-cry detector"
    data: DataRecipe = DataRecipe()
    model: StudentConfig = StudentConfig()
    compose: ComposeRecipe = ComposeRecipe()
    train: TrainRecipe = TrainRecipe()
    distil: DistilRecipe = DistilRecipe()


def read_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> DetectorRecipe:
    """`load_recipe` of a `crykit train detector` run."""
    return load_recipe(path, DetectorRecipe, overrides)


def load_recipe(path: str | Path, kind: type[Recipe], overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply ``section.key=value`` overrides (values in TOML's notation).

    Args:
        kind: the `msgspec.Struct` that the recipe must be; it should forbid unknown fields.

    Raises:
        InputError: no such file, or no TOML.
        UsageError: an unknown key or a value of the wrong kind, named.
    """
    try:
        tree: dict[str, Any] = msgspec.toml.decode(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: is no TOML ({error})") from None
    for override in overrides:
        _override(tree, override)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"recipe {path}: {error}; mend that key") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override!r}: expected section.key=value")
    try:
        value = msgspec.toml.decode(f"value = {text}".encode())["value"]
    except msgspec.DecodeError:
        value = text  # a bare word is a string
    *sections, name = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UsageError(f"--set {override!r}: {section} is no section of the recipe")
    tree[name] = value
