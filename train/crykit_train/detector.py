"""`crykit train detector`: the streaming student from composed sequences.

A run folder holds ``recipe.json``, ``environment.json``, ``checkpoint.safetensors`` (to resume),
``history.jsonl``, ``curves.png``, ``metrics.json``, and at the end ``model.safetensors`` with
``model.json``, which `crykit export` turns into a bundle.
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from crykit import __version__
from crykit.dataset import Clip, data_summary, read_manifest, without_sources
from crykit.errors import FaultFound, InputError, UsageError
from crykit.nn.fake_quant import fake_quantise, plain_student, set_mode, without_ranges
from crykit.nn.student import CryStudent
from crykit_train import checkpoint
from crykit_train.compose import FRAME_SAMPLES, ClipBank, Composer, usable
from crykit_train.curves import draw_curves
from crykit_train.evaluate import clip_scores, summarise_clips
from crykit_train.models import LEAKY_STAMP, is_leaky, load_detector
from crykit_train.peers.yamnet import WINDOW_SAMPLES
from crykit_train.recipe import DetectorRecipe
from crykit_train.rounds import Ear, Round, RoundSource, update_hardness
from crykit_train.targets import (
    UNVERIFIED,
    SoftTargets,
    load_targets,
    save_targets,
    soft_targets,
)

TARGETS_NAME = "targets.safetensors"
MASK_SHARE = 0.4
GRADIENT_NORM = 5.0
USUAL_CRY_SHARE = 0.3  # of composed sequences, for a bundle that does not say its own
WINDOW_FRAMES = WINDOW_SAMPLES // FRAME_SAMPLES  # of a YAMNet window, 0.96 s

Progress = Callable[[int, int, float], None]


def train_detector(
    recipe: DetectorRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    init: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, and write a run folder.

    Args:
        recipe: what to do.
        manifest: the clips; only its train split is learned from, its val split watched.
        out: the run folder; it must be empty unless ``resume``.
        init: a finished run to start from, with how hard it found each clip, or a bundle.
        progress: called with (step, steps, loss).

    Returns:
        The metrics that ``metrics.json`` holds.

    Raises:
        InputError: the manifest or the checkpoint is not usable.
        UsageError: the folder holds another run.
        FaultFound: the loss is no longer a number; the last good checkpoint is kept.
    """
    clips = without_sources(read_manifest(manifest, leaky=leaky), recipe.data.exclude_sources)
    run = _Run(recipe, clips, manifest.parent, out, resume, leaky, init, progress)
    try:
        return run.train(progress)
    finally:
        run.source.close()


class _Run:
    def __init__(
        self,
        recipe: DetectorRecipe,
        clips: list[Clip],
        manifest_folder: Path,
        out: Path,
        resume: bool,
        leaky: bool,
        init: Path | None,
        progress: Progress | None,
    ) -> None:
        self.recipe, self.out, self.clips, self.leaky = recipe, out, clips, leaky
        t = recipe.train
        self._check_folder(resume)
        self.manifest_folder = manifest_folder
        train = [c for c in clips if c.split == "train"]
        self.targets: SoftTargets | None = None
        if recipe.distil.teachers:
            self.targets = self._targets(resume, progress)
            self.leaky |= any(teacher.get("leaky") for teacher in self.targets.report)
        if not resume:
            self._begin_folder()
        bank = ClipBank.load(train, recipe.data, recipe.distil, self.targets)
        self.composer = Composer(bank, recipe.compose, recipe.data, t.seed)
        # The composing process is forked before this one trains.
        self.source = RoundSource(self.composer, t.sequences_per_round, self._ear())
        self.is_cry = np.array(bank.is_cry)
        self.validation = [
            c
            for c in clips
            if c.split == "val" and usable(c, recipe.data) and c.event != UNVERIFIED
        ]
        torch.set_num_threads(t.threads)
        torch.manual_seed(t.seed)
        student = CryStudent(recipe.model)
        self.model = student.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.hardness = np.full(len(bank.clips), 0.5)
        self.started_from: dict[str, Any] | None = None
        if init is not None:
            self._start_from(init)
        if t.quantisation_aware:
            set_mode(fake_quantise(self.model), "follow")
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.steps_per_round = (t.sequences_per_round // t.batch) * t.passes_per_round
        self.n_steps = self.steps_per_round * t.rounds
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.imitation = self._imitation()
        if self.imitation is not None:
            plain += list(self.imitation.parameters())
        self.optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": t.weight_decay}, {"params": plain}],
            lr=t.learning_rate,
            weight_decay=0.0,
        )
        self.next_hardness = self.hardness.copy()  # what the next round is composed with
        self.history: list[dict[str, float]] = []
        self.round = self.n_averaged = 0
        self.seconds = 0.0
        if resume:
            self._resume()

    # --- the loop ----------------------------------------------------------------------------

    def train(self, progress: Progress | None) -> dict[str, Any]:
        t = self.recipe.train
        self.source.request(self.round, self.next_hardness)
        while self.round < t.rounds:
            began = time.monotonic()
            current, composed_with = self.source.take(self.round), self.hardness.copy()
            if self.round + 1 < t.rounds:
                self.source.request(self.round + 1, composed_with)
            loss = self._learn(current, progress)
            update_hardness(self.hardness, self.is_cry, current, self._probabilities)
            self.next_hardness = composed_with
            self.round += 1
            self.seconds += time.monotonic() - began
            row = {
                "round": self.round,
                "cry_share": float(np.average(current.targets, weights=current.weights)),
                "step": self.round * self.steps_per_round,
                "loss": loss,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "hard_negatives": float((self.hardness[~self.is_cry] > 0.5).mean()),
                "seconds": self.seconds,
            }
            if self.validation and (
                self.round % t.validate_every_rounds == 0 or self.round == t.rounds
            ):
                scores = clip_scores(self.average, self.validation)
                row["val_auc"] = summarise_clips(self.validation, scores)["auc"]["value"]
            self.history.append(row)
            self._save()
        return self._finish()

    def _learn(self, current: Round, progress: Progress | None) -> float:
        t = self.recipe.train
        n = len(current.targets)
        self._probabilities = np.zeros_like(current.targets)
        losses: list[float] = []
        self.model.train()
        for turn in range(t.passes_per_round):
            rng = np.random.default_rng([t.seed, 7, self.round, turn])
            order = rng.permutation(n)
            for k in range(n // t.batch):
                picked = order[k * t.batch : (k + 1) * t.batch]
                step = self.round * self.steps_per_round + len(losses)
                for group in self.optimiser.param_groups:
                    group["lr"] = self._learning_rate(step)
                loss, logits = self._step(current, picked, rng)
                if not math.isfinite(loss):
                    raise FaultFound(
                        f"training: the loss is no number at step {step} (round {self.round}); "
                        f"the last good state is in {self.out}; "
                        "lower train.learning_rate and begin anew"
                    )
                losses.append(loss)
                self._probabilities[picked] = torch.sigmoid(logits).numpy()
                if progress and step % 8 == 0:
                    progress(step, self.n_steps, float(np.mean(losses[-64:])))
        return float(np.mean(losses))

    def _step(
        self, current: Round, picked: np.ndarray, rng: np.random.Generator
    ) -> tuple[float, Tensor]:
        features = torch.from_numpy(current.features[picked]).float()
        _mask(features, rng)
        features = features.to(memory_format=torch.channels_last)
        target = torch.from_numpy(current.targets[picked])
        weight = torch.from_numpy(current.weights[picked])
        logits, embedding, _ = self.model.logits(features, *self.model.initial_state(len(picked)))
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        if self.imitation is not None:
            assert current.heard is not None and current.heard_from is not None
            heard = torch.from_numpy(current.heard[picked]).float()
            loss = loss + self.recipe.distil.embedding_weight * self.imitation(
                embedding, torch.from_numpy(current.heard_from[picked]), heard
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimiser.step()
        self._update_average()
        return float(loss.detach()), logits.detach()

    def _learning_rate(self, step: int) -> float:
        t = self.recipe.train
        if step < t.warm_up_steps:
            return t.learning_rate * (step + 1) / t.warm_up_steps
        done = (step - t.warm_up_steps) / max(1, self.n_steps - t.warm_up_steps)
        return t.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets fast, or it would keep the random start for a thousand steps.
        self.n_averaged += 1
        decay = min(self.recipe.train.average_decay, self.n_averaged / (self.n_averaged + 9))
        for mean, now in zip(
            self.average.state_dict().values(), self.model.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    # --- teachers -----------------------------------------------------------------------------

    def _targets(self, resume: bool, progress: Progress | None) -> SoftTargets:
        if resume:
            return load_targets(self.out / TARGETS_NAME, self.manifest_folder)
        d = self.recipe.data
        asked = [c for c in self.clips if c.split in ("train", "val") and usable(c, d)]
        # With one thread torch starts none of its own, so that the composing process can be forked.
        torch.set_num_threads(1)
        return soft_targets(asked, self.recipe.distil, progress)

    def _ear(self) -> Ear | None:
        d = self.recipe.distil
        paths = [teacher.path for teacher in d.teachers if teacher.kind == "yamnet"]
        if d.embedding_weight <= 0:
            return None
        if not paths:
            raise UsageError(
                "distil.embedding_weight needs a teacher of kind yamnet; add one or set 0"
            )
        return Ear(paths[0], d.embedding_windows, self.recipe.train.seed)

    def _imitation(self) -> Imitation | None:
        if self.recipe.distil.embedding_weight <= 0:
            return None
        assert self.targets is not None and self.targets.embedding is not None
        return Imitation(self.recipe.model.embedding_size, *self.targets.embedding)

    # --- the folder --------------------------------------------------------------------------

    def _check_folder(self, resume: bool) -> None:
        if resume:
            if not (self.out / "checkpoint.safetensors").is_file():
                raise InputError(f"{self.out}: holds no checkpoint to resume; leave out --resume")
            if (self.out / "recipe.json").read_bytes() != self._recipe_text():
                raise UsageError(f"{self.out}: was begun with another recipe; choose another --out")
            return
        if self.out.exists() and any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is not empty; add --resume or choose another --out")

    def _recipe_text(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.recipe), indent=2)

    def _begin_folder(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "recipe.json").write_bytes(self._recipe_text())
        if self.targets is not None:
            save_targets(self.out / TARGETS_NAME, self.targets, self.manifest_folder)
        environment = {
            "crykit": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        }
        (self.out / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")

    def _save(self) -> None:
        tensors = {
            **checkpoint.prefixed("model", self.model.state_dict()),
            **checkpoint.prefixed("average", self.average.state_dict()),
            **checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(self.optimiser)),
            "hardness": torch.from_numpy(self.hardness.copy()),
            "next_hardness": torch.from_numpy(self.next_hardness.copy()),
        }
        if self.imitation is not None:
            tensors |= checkpoint.prefixed("imitation", self.imitation.state_dict())
        state = {"round": self.round, "seconds": self.seconds, "history": self.history}
        checkpoint.save(self.out / "checkpoint.safetensors", tensors, state)
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        (self.out / "history.jsonl").write_text(lines)
        draw_curves(self.history, self.out / "curves.png")

    def _start_from(self, run: Path) -> None:
        """Another run's averaged weights, before its prior was moved, and its hardness."""
        if (run / "manifest.json").is_file():
            self._start_from_bundle(run)
            return
        record = run / "model.json"
        if not record.is_file():
            raise InputError(f"{run}: no model.json; --init takes the folder of a finished run")
        facts = json.loads(record.read_text())
        self.started_from = facts["training"]
        self.leaky |= is_leaky(facts)
        tensors, _ = checkpoint.load(run / "checkpoint.safetensors")
        try:
            self.model.load_state_dict(without_ranges(checkpoint.under("average", tensors)))
        except RuntimeError:
            raise InputError(
                f"{run}: holds a model of another shape; give both recipes the same [model]"
            ) from None
        if len(tensors["hardness"]) == len(self.hardness):
            self.hardness = tensors["hardness"].numpy().copy()

    def _start_from_bundle(self, path: Path) -> None:
        """A bundle's weights, its prior moved back to what it learned with."""
        model, facts = load_detector(path)
        if model.config != self.recipe.model:
            raise InputError(
                f"{path}: holds a model of another shape; give the recipe the same [model]"
            )
        training = facts["training"]
        self.leaky |= is_leaky(facts)
        learnt = training.get("cry_share", USUAL_CRY_SHARE)
        move_prior(model, training["recipe"]["train"]["cry_prior"], learnt)
        self.model.load_state_dict(model.state_dict())
        self.started_from = {"bundle": facts["name"], "version": facts["version"], **training}

    def _resume(self) -> None:
        tensors, state = checkpoint.load(self.out / "checkpoint.safetensors")
        self.model.load_state_dict(checkpoint.under("model", tensors))
        self.average.load_state_dict(checkpoint.under("average", tensors))
        if self.imitation is not None:
            self.imitation.load_state_dict(checkpoint.under("imitation", tensors))
        checkpoint.restore_optimiser(self.optimiser, checkpoint.under("optimiser", tensors))
        self.hardness = tensors["hardness"].numpy().copy()
        self.next_hardness = tensors["next_hardness"].numpy().copy()
        self.round, self.seconds = state["round"], state["seconds"]
        self.history = state["history"]
        self.n_averaged = self.round * self.steps_per_round

    def _finish(self) -> dict[str, Any]:
        learnt = float(np.mean([row["cry_share"] for row in self.history]))
        move_prior(self.average, learnt, self.recipe.train.cry_prior)
        metrics: dict[str, Any] = {
            "leaky": self.leaky,
            "seconds": round(self.seconds, 1),
            "history": self.history[-1],
        }
        if self.validation and self.recipe.train.quantisation_aware:
            scores = clip_scores(self.average, self.validation)
            metrics["val_clips_in_eight_bits"] = summarise_clips(self.validation, scores)
        finished = plain_student(self.average)
        if self.validation:
            scores = clip_scores(finished, self.validation)
            metrics["val_clips"] = summarise_clips(self.validation, scores)
        trained_on = self.composer.bank.clips
        t = self.recipe.train
        model = {
            "name": self.recipe.name,
            "version": self.recipe.version,
            "licence": self.recipe.licence,
            "description": self.recipe.description + (LEAKY_STAMP if self.leaky else ""),
            "leaky": self.leaky,
            "architecture": {"kind": "cry_student", **msgspec.structs.asdict(self.recipe.model)},
            "training": {
                "recipe": msgspec.to_builtins(self.recipe),
                "data": data_summary(trained_on),
                "seed": t.seed,
                "steps": self.n_steps,
                "audio_hours": round(
                    self.n_steps * t.batch * self.composer.n_samples / 16000 / 3600, 1
                ),
                "minutes": round(self.seconds / 60, 1),
                "started_from": self.started_from,
                "cry_share": round(learnt, 4),
                "distilled_from": None if self.targets is None else self._distilled(),
            },
            "metrics": metrics,
        }
        weights = {k: v.contiguous() for k, v in finished.state_dict().items()}
        save_file(weights, self.out / "model.safetensors")
        (self.out / "model.json").write_text(json.dumps(model, indent=2) + "\n")
        (self.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        return metrics

    def _distilled(self) -> dict[str, Any]:
        """What the teachers were, and what became of the clips without a label."""
        assert self.targets is not None
        bank = self.composer.bank
        unlabelled = [
            kind
            for clip, kind in zip(bank.clips, bank.is_cry, strict=True)
            if clip.event == UNVERIFIED
        ]
        return {
            "teachers": self.targets.report,
            "unverified_as_cry": sum(unlabelled),
            "unverified_as_other": len(unlabelled) - sum(unlabelled),
        }


class Imitation(nn.Module):
    """How far the student's embedding is from a teacher's, through a linear map.

    One minus the cosine of the teacher's standardised embedding and a linear map of the student's
    mean over the frames of the same window: the direction carries what was heard.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        super().__init__()
        self.map = nn.Linear(size, len(mean))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))

    def forward(self, embedding: Tensor, first: Tensor, heard: Tensor) -> Tensor:
        """A scalar loss.

        Args:
            embedding: (batch, frames, size), the student's.
            first: (batch, windows), each window's first frame.
            heard: (batch, windows, teacher size).
        """
        frames = first[:, :, None] + torch.arange(WINDOW_FRAMES)
        rows = torch.arange(len(embedding))[:, None, None]
        mine = self.map(embedding[rows, frames].mean(dim=2))
        return 1 - F.cosine_similarity(mine, (heard - self.mean) / self.std, dim=2).mean()


@torch.no_grad()
def move_prior(model: CryStudent, learnt: float, deployed: float) -> None:
    """Move the head's bias from the share of cries in training to that in use.

    Bayes' rule for a change of class prior alone (Saerens, Latinne and Decaestecker, Neural
    Computation 14(1), 2002): the log-odds move by the difference of the priors' log-odds. The
    ranking stays; probabilities come to mean something in a real night, and thresholds leave the
    saturated end of the sigmoid, where int8 has few steps.
    """
    if not (0 < learnt < 1 and 0 < deployed < 1):
        raise UsageError(f"priors must lie between 0 and 1, got {learnt:g} and {deployed:g}")
    shift = math.log(deployed / (1 - deployed)) - math.log(learnt / (1 - learnt))
    assert model.head.bias is not None
    model.head.bias += shift


def _mask(features: Tensor, rng: np.random.Generator) -> None:
    """SpecAugment's masks (Park et al., Interspeech 2019), in place, on a share of the batch.

    A masked stretch takes the mean of its channel, so that silence is not what a mask looks like.
    """
    _, _, mels, frames = features.shape
    for x in features:
        if rng.random() >= MASK_SHARE:
            continue
        fill = x.mean(dim=(1, 2), keepdim=True)
        height = int(rng.integers(1, 11))
        low = int(rng.integers(0, mels - height))
        x[:, low : low + height] = fill
        width = int(rng.integers(5, 31))
        at = int(rng.integers(0, frames - width))
        x[:, :, at : at + width] = fill
