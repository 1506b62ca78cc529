"""What `crykit train analyze` is told to do."""

from __future__ import annotations

from typing import Literal

import msgspec

from crykit_train.probe.recipes import TaskRecipe
from crykit_train.probe.transfer import TransferPlan
from crykit_train.ssl.recipes import EncoderRecipe, PretrainRecipe
from crykit_train.understand.ladder import LadderRecipe
from crykit_train.understand.rsa import PERMUTATIONS


class CkaRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Layers against layers. Without ``pairs``, every two models that are encoders of ours."""

    pairs: tuple[tuple[str, str], ...] = ()
    clips: int = 256
    window_s: float = 2.0
    debiased: bool = True


class RsaRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Distances against distances, in each source alone; one clip a group, so that none repeats."""

    sources: tuple[str, ...] = (
        "esc50",
        "urbansound8k",
        "speech_commands",
        "fsdkaggle2018",
        "donateacry",
    )
    # Where pitch means something: one voice or one instrument at a time.
    pitched_sources: tuple[str, ...] = ("fsdkaggle2018", "donateacry")
    clips: int = 200
    permutations: int = PERMUTATIONS


class PanelRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One t-SNE picture; empty ``sources`` or ``events`` mean all."""

    title: str
    colour: Literal["event", "label", "source", "pitch"] = "event"
    sources: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


PANELS = (
    PanelRecipe("all sounds, by event"),
    PanelRecipe("spoken words", "label", ("speech_commands",), ("speech",)),
    PanelRecipe("cries, by source", "source", (), ("cry",)),
    PanelRecipe("instruments", "label", ("fsdkaggle2018",)),
    PanelRecipe("instruments, by pitch", "pitch", ("fsdkaggle2018",)),
    PanelRecipe("cries, by pitch", "pitch", (), ("cry",)),
)


class TsneRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pictures of one model's embeddings: the model called ``model``, else the first."""

    model: str = "both"
    clips: int = 800
    perplexity: float = 30.0
    panels: tuple[PanelRecipe, ...] = PANELS


ProbeProtocol = Literal["transfer", "logistic"]
Domain = Literal["speech", "non-speech", "both", "sum"]


class DomainTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A downstream task and the domain it is drawn under."""

    domain: str
    task: TaskRecipe = TaskRecipe()
    # ``task`` is one of crykit_train.probe's, or the labels of this source are the classes.
    labels_of: str = ""

    @property
    def label(self) -> str:
        return f"{self.labels_of} labels" if self.labels_of else self.task.label


DOMAIN_TASKS = (
    DomainTask("non-speech", labels_of="esc50"),
    DomainTask("non-speech", labels_of="urbansound8k"),
    DomainTask("speech", TaskRecipe("speech_words")),
    DomainTask("voice activity", TaskRecipe("speech_vs_rest")),
    DomainTask("cry", TaskRecipe("cry_detection")),
    DomainTask("cry", TaskRecipe("leave_out", source="esc50")),
    DomainTask("cry", TaskRecipe("leave_out", source="donateacry", negatives_of="urbansound8k")),
)


class DomainsRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The domain question (M. Ogg 2025): encoders by what they heard, on tasks of every domain.

    ``both`` hears as many seconds as ``speech`` and ``non-speech`` each do, half and half; ``sum``
    hears all that those two did, as in the paper.
    """

    domains: tuple[Domain, ...] = ("speech", "non-speech", "both")
    # No encoder hears these, so that every task asks of data sets that are new to it.
    held_out: tuple[str, ...] = (
        "esc50",
        "urbansound8k",
        "speech_commands",
        "donateacry",
        "donateacry_raw",
        "baby_cry_detection",
    )
    speech_events: tuple[str, ...] = ("speech",)
    other_events: tuple[str, ...] = ("alarm", "animal", "household", "music", "noise", "silence")
    # Seconds of each; 0 is what the smaller of the two holds.
    seconds: float = 0.0
    seeds: tuple[int, ...] = (1,)
    tasks: tuple[DomainTask, ...] = DOMAIN_TASKS
    # ``transfer`` is the paper's probe; ``logistic`` standardises and tunes, so that neither the
    # scale of an embedding nor 50 epochs decide.
    protocols: tuple[ProbeProtocol, ...] = ("transfer", "logistic")
    plan: TransferPlan = TransferPlan(repeats=5)
    c_grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    pretrain: PretrainRecipe | None = None


class AnalyzeRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `crykit train analyze` run. CKA, RSA and t-SNE look at clips of ``splits`` alone."""

    manifest: str = ""
    cache: str = ""
    threads: int = 1
    seed: int = 0
    splits: tuple[str, ...] = ("val", "test")
    # Of the model called random.
    encoder: EncoderRecipe = EncoderRecipe()
    cka: CkaRecipe = CkaRecipe()
    rsa: RsaRecipe = RsaRecipe()
    tsne: TsneRecipe = TsneRecipe()
    domains: DomainsRecipe = DomainsRecipe()
    ladder: LadderRecipe = LadderRecipe()
