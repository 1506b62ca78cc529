"""The training loop on Lightning Fabric: one process or many, resumable to the same loss curve.

Everything random follows from (seed, step, process), so nothing of it has to be saved. Under
torchrun the processes are its own; ``train.devices`` starts them otherwise.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import Tensor

from crykit.errors import FaultFound, InputError, UsageError
from crykit.nn.logmel import LogMel
from crykit.nn.pretrained import Pretrained, save_pretrained
from crykit_train import checkpoint
from crykit_train.ssl.augment import Augmenter
from crykit_train.ssl.build import (
    Plan,
    build_objective,
    build_optimiser,
    build_source,
    class_names,
    describe_data,
)
from crykit_train.ssl.corpus import window_frames
from crykit_train.ssl.folder import RunFolder
from crykit_train.ssl.objectives import SimClr
from crykit_train.ssl.recipes import ByolRecipe, HybridRecipe, SimclrRecipe, TrainRecipe
from crykit_train.ssl.sources import Batch, CorpusSource, class_numbers

Progress = Callable[[int, int, float], None]


def train(
    plan: Plan, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train, and write the run folder.

    Returns:
        The metrics that ``metrics.json`` holds; nothing in processes beside the first.

    Raises:
        InputError: a checkpoint that is not this run's, or a full disk.
        UsageError: the folder holds another run.
        FaultFound: the loss is no longer a number; the last good checkpoint is kept.
    """
    return _Run(plan, out, resume, progress).train()


def make_fabric(t: TrainRecipe) -> Fabric:
    """Fabric as the recipe, or torchrun's environment, says."""
    devices, nodes = t.devices, t.nodes
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    try:
        return Fabric(
            accelerator=t.accelerator,
            strategy="ddp" if devices * nodes > 1 else "auto",
            devices=devices,
            num_nodes=nodes,
            precision=t.precision,  # pyright: ignore[reportArgumentType]
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"train.accelerator, devices or precision: {reason}") from None


def step_seed(seed: int, step: int, rank: int) -> int:
    """A number for torch's generators, from the run's seed and where it stands."""
    words = np.random.SeedSequence([seed, 17, step, rank]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


class _Run:
    def __init__(self, plan: Plan, out: Path, resume: bool, progress: Progress | None) -> None:
        self.plan, self.recipe, self.progress = plan, plan.recipe, progress
        t = self.recipe.train
        if t.threads:
            torch.set_num_threads(t.threads)
        self.fabric = make_fabric(t)
        self.fabric.launch()
        loss_name = _LOSS_NAMES.get(type(self.recipe.objective), "cross-entropy")
        self.folder = RunFolder(out, loss_name + (" (LEAKY SPLIT)" if plan.leaky else ""))
        if self.fabric.is_global_zero:
            self.folder.open(plan.asked, resume=resume)
        self.fabric.barrier()
        kept, state = self.folder.load() if resume else ({}, {})
        self._build(kept or plan.tensors, state)
        self.n_steps = t.steps or t.epochs * self.source.steps_per_epoch
        self.step = int(state.get("step", 0))
        self.seconds = float(state.get("seconds", 0.0))
        self.waited = float(state.get("waited", 0.0))
        self.history: list[dict[str, float]] = state.get("history", [])
        self.saved_step = self.step
        if kept:
            checkpoint.restore_optimiser(self.plain, checkpoint.under("optimiser", kept))
            self._restore_memory(kept)

    def _build(self, kept: dict[str, Tensor], state: dict[str, Any]) -> None:
        r, fabric = self.recipe, self.fabric
        torch.manual_seed(r.train.seed)
        positions = state.get("positions") or [(0, 0)]
        here = positions[fabric.global_rank % len(positions)]
        names = class_names(self.plan)
        labels, self.classes = class_numbers(names) if names else (None, [])
        objective = build_objective(r, len(self.classes))
        n_mels = objective.encoder.n_mels
        self.source = build_source(
            self.plan,
            n_mels,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            position=(int(here[0]), int(here[1])),
            labels=labels,
            scale=kept.get("compare.scale"),
            update=self._loading,
        )
        if isinstance(objective, SimClr) and fabric.world_size > 1:
            objective.gather = self._gather
            objective.rank = fabric.global_rank
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            objective = torch.nn.SyncBatchNorm.convert_sync_batchnorm(objective)
        if kept:
            load_weights(objective, checkpoint.under("objective", kept), self.folder.path)
        # Convolutions of few channels run up to twice as fast this way, on CPU and GPU.
        objective = objective.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.objective = objective
        self.plain = build_optimiser(r, objective)
        self.model, self.optimiser = fabric.setup(objective, self.plain)
        self.log_mel = LogMel(n_mels).to(fabric.device)
        mean, std = self._statistics(state)
        self.augmenter = Augmenter(r.views, mean, std)
        self.generator = torch.Generator(device=fabric.device)

    def _gather(self, projections: Tensor) -> Tensor:
        """Of all processes; the backward pass sums their gradients."""
        gathered = self.fabric.all_gather(projections, sync_grads=True)
        assert isinstance(gathered, Tensor)
        return gathered

    def _loading(self, done: int, total: int) -> None:
        if self.progress and self.fabric.is_global_zero:
            self.progress(done, total, math.nan)

    def _statistics(self, state: dict[str, Any]) -> tuple[float, float]:
        """Mean and deviation: of the checkpoint, the first run, or this corpus."""
        if "mean" in state:
            return float(state["mean"]), float(state["std"])
        if self.plan.statistics is not None:
            return self.plan.statistics
        t = self.recipe.train
        frames = window_frames(self.recipe.views.window_s)
        if isinstance(self.source, CorpusSource):
            return self.source.corpus.statistics(frames, t.statistics_windows, t.seed)
        seen = [
            self.log_mel(self.source.batch(step).chunks[0].to(self.fabric.device)).flatten()
            for step in range(max(1, t.statistics_windows // t.batch))
        ]
        values = torch.cat(seen).double()
        return float(values.mean()), float(values.std())

    # --- the loop ----------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        t = self.recipe.train
        save_every = -(-t.save_every_steps // t.log_every_steps) * t.log_every_steps
        self.model.train()
        pending: list[dict[str, Tensor]] = []
        began = time.monotonic()
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self._fetch, self.step)
            while self.step < self.n_steps:
                asked = time.monotonic()
                batch = following.result()
                self.waited += time.monotonic() - asked
                following = ahead.submit(self._fetch, self.step + 1)
                pending.append(self._learn(batch))
                self.step += 1
                last = self.step == self.n_steps
                if last or self.step % t.log_every_steps == 0:
                    row = self._row(pending)
                    pending = []
                    now = time.monotonic()
                    self.seconds, began = self.seconds + now - began, now
                    self.history.append({**row, "seconds": round(self.seconds, 2)})
                    if self.progress and self.fabric.is_global_zero:
                        self.progress(self.step, self.n_steps, row["loss"])
                    if last or self.step % save_every == 0:
                        self._save(batch.position)
        return self._finish()

    def _fetch(self, step: int) -> Batch:
        batch = self.source.batch(step)
        if self.fabric.device.type != "cuda":
            return batch
        # Pinned, so that the copy to the GPU runs beside the step before.
        extra = None if batch.extra is None else batch.extra.pin_memory()
        return replace(batch, chunks=batch.chunks.pin_memory(), extra=extra)

    def _learn(self, batch: Batch) -> dict[str, Tensor]:
        t, device = self.recipe.train, self.fabric.device
        seed = step_seed(t.seed, self.step, self.fabric.global_rank)
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)
        for group in self.plain.param_groups:
            group["lr"] = learning_rate(t, self.step, self.n_steps)
        with torch.no_grad():
            chunks = batch.chunks.to(device, non_blocking=True)
            if batch.is_audio:
                chunks = torch.stack([self.log_mel(audio) for audio in chunks])
            views = self.augmenter(chunks, self.generator)
        extra = () if batch.extra is None else (batch.extra.to(device, non_blocking=True),)
        losses = self.model(views, *extra)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(losses["loss"])
        self.optimiser.step()
        self.objective.after_step()
        return {name: value.detach() for name, value in losses.items()}

    def _row(self, pending: list[dict[str, Tensor]]) -> dict[str, float]:
        """Means over the steps since the last row; refuses a loss that is no number."""
        row: dict[str, float] = {"step": self.step}
        for name in pending[0]:
            values = torch.stack([losses[name] for losses in pending]).float()
            if self.fabric.world_size > 1:
                values = self.fabric.all_reduce(values, reduce_op="mean")
            assert isinstance(values, Tensor)
            bad = (~torch.isfinite(values)).nonzero()
            if len(bad):
                self._fault("loss", self.step - len(pending) + int(bad[0]))
            row[name] = float(values.mean())
        row["learning_rate"] = self.plain.param_groups[0]["lr"]
        return row

    def _fault(self, what: str, step: int) -> None:
        kept = f"the last good state, of step {self.saved_step}, is in {self.folder.path}"
        if not self.saved_step:
            kept = "no checkpoint had been written"
        raise FaultFound(
            f"training: the {what} is no number at step {step}; {kept}; "
            "lower train.learning_rate and begin anew"
        )

    # --- the folder --------------------------------------------------------------------------

    def _save(self, position: tuple[int, int]) -> None:
        weights = self.objective.state_dict()
        sound = torch.stack([w.isfinite().all() for w in weights.values()]).all()
        if not bool(sound):
            self._fault("weight", self.step)
        tensors = {
            **checkpoint.prefixed("objective", weights),
            **checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(self.plain)),
        }
        memory = self.augmenter.memory.kept
        if memory is not None:
            tensors["memory"] = self._of_all(memory)
        compare = self.source.compare if isinstance(self.source, CorpusSource) else None
        if compare is not None:
            tensors["compare.scale"] = compare.scale
        positions = self._of_all(torch.tensor(position, device=self.fabric.device)).tolist()
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "waited": self.waited,
            "history": self.history,
            "mean": self.augmenter.mean,
            "std": self.augmenter.std,
            "positions": positions,
        }
        if self.fabric.is_global_zero:
            self.folder.save(tensors, state)
        self.saved_step = self.step
        self.fabric.barrier()

    def _of_all(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, (processes, ...)."""
        if self.fabric.world_size == 1:
            return tensor[None]
        gathered = self.fabric.all_gather(tensor)
        assert isinstance(gathered, Tensor)
        return gathered

    def _restore_memory(self, kept: dict[str, Tensor]) -> None:
        memory = kept.get("memory")
        if memory is not None:
            own = memory[self.fabric.global_rank % len(memory)]
            self.augmenter.memory.kept = own.to(self.fabric.device)

    def _finish(self) -> dict[str, Any]:
        t = self.recipe.train
        whole = self.n_steps * t.batch
        if isinstance(self.source, CorpusSource):
            whole = self.n_steps * self.source.per_process * self.fabric.world_size
        metrics: dict[str, Any] = {
            "stage": self.plan.stage,
            "leaky": self.plan.leaky,
            "steps": self.n_steps,
            "windows": whole,
            "window_hours": round(whole * self.recipe.views.window_s / 3600, 2),
            "minutes": round(self.seconds / 60, 2),
            # Of the time, spent waiting for the next batch: over a few per cent, data starve it.
            "waiting_share": round(self.waited / max(self.seconds, 1e-9), 4),
            "last": self.history[-1],
        }
        if self.fabric.is_global_zero:
            self.folder.finish(metrics, self.history)
            save_pretrained(self.folder.path, self._pretrained(metrics))
        self.fabric.barrier()
        return metrics if self.fabric.is_global_zero else {}

    def _pretrained(self, metrics: dict[str, Any]) -> Pretrained:
        objective, r = self.objective, self.recipe
        head = objective.head()
        kind = str(msgspec.to_builtins(r.objective)["kind"])
        size = r.objective.hidden if isinstance(r.objective, SimclrRecipe) else 0
        training = {
            "recipe": msgspec.to_builtins(r),
            "data": describe_data(self.plan),
            "classes": self.classes,
            "steps": metrics["steps"],
            "windows": metrics["windows"],
            "minutes": metrics["minutes"],
            **self.plan.record,
        }
        record = {
            "format": 1,
            "encoder": {"name": r.encoder.name, "options": dict(r.encoder.options)},
            "log_mel": {
                "n_mels": objective.encoder.n_mels,
                "mean": self.augmenter.mean,
                "std": self.augmenter.std,
            },
            "head": {"kind": "projector_layer1", "size": size} if head is not None else None,
            "objective": kind,
            "stage": self.plan.stage,
            "leaky": self.plan.leaky,
            "training": training,
        }
        encoder = objective.encoder.cpu().eval().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        head = head.cpu().eval() if head is not None else None
        return Pretrained(encoder, self.augmenter.mean, self.augmenter.std, head, record)


_LOSS_NAMES = {
    SimclrRecipe: "NT-Xent",
    ByolRecipe: "BYOL loss",
    HybridRecipe: "hybrid loss",
}


def load_weights(objective: torch.nn.Module, weights: dict[str, Tensor], where: Path) -> None:
    """Put a checkpoint's weights back.

    Raises:
        InputError: they are another encoder's or another objective's.
    """
    try:
        objective.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(
            f"{where}: the checkpoint is of another encoder or objective ({first[:160]}); "
            "give the recipe that it was trained with"
        ) from None


def learning_rate(t: TrainRecipe, step: int, steps: int) -> float:
    """Linear warm-up, then constant or half a cosine down to zero."""
    if step < t.warm_up_steps:
        return t.learning_rate * (step + 1) / t.warm_up_steps
    if t.schedule == "constant":
        return t.learning_rate
    done = (step - t.warm_up_steps) / max(1, steps - t.warm_up_steps)
    return t.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
