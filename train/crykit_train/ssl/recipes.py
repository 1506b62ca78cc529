"""Recipes of `crykit train pretrain` and `adapt`; the defaults are the papers'."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DataRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which audio is heard. Empty ``include`` means everything; groups follow their sources."""

    manifest: str = ""
    split: str = "train"
    include_events: tuple[str, ...] = ()
    exclude_events: tuple[str, ...] = ()
    exclude_sources: tuple[str, ...] = ()
    # Sharded tar files (webdataset notation, braces allowed) in the manifest's place.
    shards: tuple[str, ...] = ()
    # A folder for log-mels and ComParE features; empty computes them anew.
    cache: str = ""


class EncoderRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which encoder; ``options`` are those of `crykit.nn.encoders.build_encoder`."""

    name: str = "audiontt2020"
    options: dict[str, int | float | bool | str] = {}


class ViewsRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How two views come of one clip; on normalised log-mels (zero mean, unit deviation)."""

    window_s: Positive = 0.95
    # Two views are two chunks of a clip (SimCLR), or one chunk seen twice (BYOL-A).
    own_chunks: bool = False
    # Log-mixup-exp: the other sound's weight is drawn from 0 to this; 0 leaves it out.
    mixup: Share = 0.0
    mixup_memory: Count = 2048
    resize_crop: bool = False
    canvas: tuple[float, float] = (1.0, 1.5)  # of frequency and time, in windows
    crop_frequency: tuple[float, float] = (0.6, 1.5)
    crop_time: tuple[float, float] = (0.6, 1.5)
    # SpecAugment: so many masks, each up to that share of the bands or frames.
    frequency_masks: int = 0
    frequency_mask_share: Share = 0.2
    time_masks: int = 0
    time_mask_share: Share = 0.2
    # The batch of views is standardised once more, against the drift that they bring.
    post_normalise: bool = False


class SimclrRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="simclr", tag_field="kind"
):
    """NT-Xent on a three-layer projector (Gorin et al., 2.2)."""

    hidden: int = 2048
    size: int = 512
    batch_norm: bool = True
    temperature: Positive = 0.1


class ByolRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="byol", tag_field="kind"
):
    """BYOL-A (Niizumi et al., 2021)."""

    hidden: int = 4096
    size: int = 256
    target_decay: Share = 0.99


class HybridRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hybrid", tag_field="kind"
):
    """BYOL with a third branch to ComParE 2016 (Elbanna et al., 2.2): alpha sup + beta ss."""

    hidden: int = 4096
    target_decay: Share = 0.99
    alpha: float = 1.0
    beta: float = 1.0
    # openSMILE takes some 30 ms a window: at most so many windows a clip; 0 takes all.
    windows_per_clip: int = 0


class SupervisedRecipe(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="supervised", tag_field="kind"
):
    """Cross-entropy on the manifest's ``event`` or ``orig_label``: the control."""

    label: Literal["event", "orig_label"] = "orig_label"


Objective = SimclrRecipe | ByolRecipe | HybridRecipe | SupervisedRecipe


class TrainRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimisation. ``batch`` counts clips over all processes; ``steps`` outranks epochs."""

    seed: int = 1
    batch: Count = 256
    epochs: Count = 100
    steps: int = 0
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 3e-4
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up_steps: int = 0
    log_every_steps: Count = 20
    save_every_steps: Count = 200
    statistics_windows: Count = 10_000
    # Lightning Fabric's; torchrun sets the number of processes by itself.
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"  # or bf16-mixed
    threads: int = 0  # of torch on the CPU; 0 leaves its choice


class PretrainRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole `crykit train pretrain` run."""

    objective: Objective
    data: DataRecipe = DataRecipe()
    encoder: EncoderRecipe = EncoderRecipe()
    views: ViewsRecipe = ViewsRecipe()
    train: TrainRecipe = TrainRecipe()


class AdaptRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `crykit train adapt` run: encoder, projector, views and objective are the first run's.

    Gorin et al., 2.4: SimCLR goes on on unlabelled cries with the same learning rate and schedule,
    in batches of 200, for 100 more epochs, alone or with half of the general audio.
    """

    data: DataRecipe = DataRecipe(include_events=("cry", "unverified"))
    # Share of the first run's audio, by groups, that is heard again among the cries.
    replay_share: Share = 0.5
    # Values that differ from the first run's [views] and [train].
    views: dict[str, Any] = {}
    train: dict[str, Any] = {}
