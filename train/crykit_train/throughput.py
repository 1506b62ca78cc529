"""How fast each encoder trains and embeds: seconds of audio in a second.

Four figures for each: forward alone, a step of BYOL-A (two views, the slow copy's predictions,
backward, Adam) on a batch that lies ready, the same step with its batches loaded as a training
loads them, and the share of that time in which the step waited for its batch. Time is taken twice:
the clock's, which is what a run costs, and on the CPU the process's own, which other programs on
the machine do not lengthen.

Model FLOP utilisation (A. Chowdhery et al., "PaLM", 2022, appendix B) is the multiplications and
additions that a step's networks need, over the time it took, over the peak that the maker states.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from crykit.errors import UsageError
from crykit.nn.encoders import Encoder, build_encoder
from crykit.nn.logmel import LogMel
from crykit_train.ssl.augment import Augmenter
from crykit_train.ssl.build import check_window
from crykit_train.ssl.corpus import window_frames
from crykit_train.ssl.objectives import Byol
from crykit_train.ssl.recipes import ViewsRecipe
from crykit_train.ssl.sources import Batch

BYOL_A_VIEWS = ViewsRecipe(mixup=0.4, resize_crop=True, post_normalise=True)
LEAST_STEPS = 2

# Dense peaks in TFLOP/s as NVIDIA's data sheets state them: bfloat16, and TF32, which is the most
# that single precision can use.
PEAKS_TFLOPS = {
    "A100": (312.0, 156.0),
    "H100": (989.4, 494.7),
    "H200": (989.4, 494.7),
    "L4": (121.0, 60.0),
}

LoadBatch = Callable[[int], Batch]


class Work(msgspec.Struct, frozen=True):
    """What is timed: ``seconds`` bounds each figure, after one step that does not count."""

    batch: int = 8
    window_s: float = 0.95
    seconds: float = 3.0
    device: str = "cpu"
    precision: str = "32-true"
    peak_tflops: float = 0.0


class Timing(msgspec.Struct, frozen=True):
    """Steps and what they took; ``waited_s`` is the clock time spent on waiting for batches."""

    steps: int
    clock_s: float
    process_s: float
    waited_s: float = 0.0

    def rates(self, audio_s: float) -> dict[str, float]:
        """Seconds of audio in a second of either clock, for steps of ``audio_s`` each."""
        heard = self.steps * audio_s
        return {
            "clock": round(heard / self.clock_s, 2),
            "process": round(heard / max(self.process_s, 1e-9), 2),
        }


def measure(
    encoder: Encoder, work: Work, load: LoadBatch | None = None, statistics: tuple = (-8.0, 4.5)
) -> dict[str, Any]:
    """Every figure of one encoder.

    Args:
        load: batches of log-mels or audio by step, as a training loads them; none leaves these
            figures out.
        statistics: mean and deviation of the log-mels.

    Raises:
        UsageError: a window that is too short for the encoder.
    """
    check_window(encoder, work.window_s)
    device = torch.device(work.device)
    frames = window_frames(work.window_s)
    count = flops(encoder, frames)
    audio_s = work.batch * work.window_s
    ready = torch.randn(1, work.batch, 1, encoder.n_mels, frames, device=device)
    ready = ready * statistics[1] + statistics[0]
    forward = _time_forward(encoder.to(device), ready[0], work)
    step = TrainingStep(encoder, work, statistics)
    training = time_steps(lambda _: step(Batch(ready)), work)
    result: dict[str, Any] = {
        "encoder": encoder.name,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "embedding_size": encoder.embedding_size,
        "mega_macs_per_audio_second": round(count["forward"] / 2e6 / work.window_s, 1),
        "batch": work.batch,
        "window_s": work.window_s,
        "forward": forward.rates(audio_s),
        "training": training.rates(audio_s),
    }
    timed = training
    if load is not None:
        loaded = _time_loaded(step, load, work)
        result["training_loaded"] = loaded.rates(audio_s)
        result["waiting_share"] = round(loaded.waited_s / loaded.clock_s, 4)
        timed = loaded
    peak = work.peak_tflops or (peak_tflops(device, work.precision) or 0.0)
    if peak:
        per_step = count["training"] * work.batch
        result["utilisation"] = round(
            utilisation(per_step * timed.steps, timed.clock_s, peak * 1e12), 4
        )
        result["peak_tflops"] = peak
    return result


# --- work ------------------------------------------------------------------------------------


def flops(encoder: Encoder, frames: int) -> dict[str, float]:
    """Floating-point operations for one window: ``forward``, and a BYOL ``training`` step.

    A multiplication and an addition are two. Counted on tensors without storage, so that nothing is
    computed; attention is counted as plain products, which is what the algorithm needs.
    """
    # Two windows: a batch norm over single values refuses one.
    with torch.random.fork_rng(devices=[]):
        ghost = copy.deepcopy(encoder).to("meta").train()
        with torch.device("meta"):
            objective = Byol(ghost)
            views = torch.zeros(2, 2, 1, encoder.n_mels, frames)
    with sdpa_kernel(SDPBackend.MATH):
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            ghost(views[0])
        with FlopCounterMode(display=False) as training:
            objective(views)["loss"].backward()
    return {
        "forward": forward.get_total_flops() / 2,
        "training": training.get_total_flops() / 2,
    }


def utilisation(operations: float, seconds: float, peak_per_second: float) -> float:
    """The share of the peak that was used."""
    return operations / seconds / peak_per_second


def peak_tflops(device: torch.device, precision: str) -> float | None:
    """The stated peak of a known GPU, by its name; none for another and for CPUs."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision)


def peak_of(name: str, precision: str) -> float | None:
    for known, (half, single) in PEAKS_TFLOPS.items():
        if known in name.replace("-", " ").split():
            return half if "16" in precision else single
    return None


# --- time ------------------------------------------------------------------------------------


class TrainingStep:
    """One step of BYOL-A, as the engine takes it."""

    def __init__(self, encoder: Encoder, work: Work, statistics: tuple[float, float]) -> None:
        self.device, self.precision = torch.device(work.device), work.precision
        model: nn.Module = Byol(copy.deepcopy(encoder)).to(self.device)
        self.objective = model.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        moved = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(moved, lr=3e-4)
        self.augmenter = Augmenter(BYOL_A_VIEWS, *statistics)
        self.log_mel = LogMel(encoder.n_mels).to(self.device)
        self.generator = torch.Generator(device=self.device)

    def __call__(self, batch: Batch) -> None:
        with torch.no_grad():
            chunks = batch.chunks.to(self.device, non_blocking=True)
            if batch.is_audio:
                chunks = torch.stack([self.log_mel(audio) for audio in chunks])
            views = self.augmenter(chunks, self.generator)
        with _autocast(self.device, self.precision):
            loss = self.objective(views)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.objective.after_step()  # pyright: ignore[reportCallIssue]


def time_steps(step: Callable[[int], None], work: Work) -> Timing:
    """Run steps for the budget, two at the least, after one that is not counted."""
    device = torch.device(work.device)
    step(0)
    _wait(device)
    began, began_process, steps = time.monotonic(), time.process_time(), 0
    while steps < LEAST_STEPS or _spent(device, began, began_process) < work.seconds:
        steps += 1
        step(steps)
        _wait(device)
    return Timing(steps, time.monotonic() - began, time.process_time() - began_process)


def _time_forward(encoder: Encoder, log_mel: Tensor, work: Work) -> Timing:
    encoder.eval()

    def step(_: int) -> None:
        with torch.inference_mode(), _autocast(torch.device(work.device), work.precision):
            encoder(log_mel)

    return time_steps(step, work)


def _time_loaded(step: Callable[[Batch], None], load: LoadBatch, work: Work) -> Timing:
    """With each batch loaded by a second thread while the step before it runs."""
    waits: list[float] = []
    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(load, 0)

        def one(number: int) -> None:
            nonlocal following
            began = time.monotonic()
            batch = following.result()
            waits.append(time.monotonic() - began)
            following = ahead.submit(load, number + 1)
            step(batch)

        timing = time_steps(one, work)
    return msgspec.structs.replace(timing, waited_s=sum(waits[1:]))


def _spent(device: torch.device, began: float, began_process: float) -> float:
    if device.type == "cpu":
        return time.process_time() - began_process
    return time.monotonic() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision.startswith("bf16"))


def build_named(text: str) -> Encoder:
    """``NAME`` or ``NAME:channels=32,size=512``.

    Raises:
        UsageError: an unknown encoder or option.
    """
    name, _, rest = text.partition(":")
    options: dict[str, int] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not value.isdigit():
            raise UsageError(f"--encoder {text}: expected NAME:key=number,key=number")
        options[key] = int(value)
    return build_encoder(name, **options)
