"""Sound in, cries out: the streaming engine that the app, the commands and the benchmark share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ulid import ULID

from crykit.errors import InputError
from crykit.events import CryEvent, CryStarted
from crykit.gate import SILENCE_DBFS, EventGate, GateClosed, GateOpened
from crykit.runtime import Runtime, StepOutput

Float32 = NDArray[np.float32]

MAX_AMPLITUDE = 1e6
"""Full scale is 1. Float files do go over it; this far over, the power would soon overflow."""


@dataclass(frozen=True)
class FrameBlock:
    """What one step of the model heard and said.

    Args:
        first_sample: clock of the block's first sample.
        cry_probability: (frames,).
        embedding: (frames, embedding size).
        log_mel: (log-mel frames, mel bands), scaled as the model sees it.
        level_dbfs: (frames,), root mean square over each frame.
    """

    first_sample: int
    cry_probability: Float32
    embedding: Float32
    log_mel: Float32
    level_dbfs: Float32


class Listener:
    """Feeds sound of any length through a runtime and a gate.

    One code path for live and offline: what comes out depends on the samples alone, never on how
    they were cut. The algorithm itself waits for a full step (160 ms with the shipped model).

    Args:
        runtime: as `open_runtime` gives it.
        gate: its clock is reset together with this listener's.
        sample_rate_hz: of what is fed, the model's own rate.
        step_samples: samples the runtime takes at a time.
        on_frames: called with every step's `FrameBlock`, on the thread that feeds.
    """

    def __init__(
        self,
        runtime: Runtime,
        gate: EventGate,
        *,
        sample_rate_hz: int,
        step_samples: int,
        on_frames: Callable[[FrameBlock], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.gate = gate
        self.sample_rate_hz = sample_rate_hz
        self.step_samples = step_samples
        self.on_frames = on_frames
        self._pending: Float32 = np.zeros(step_samples, np.float32)
        self.reset()

    @property
    def samples_scored(self) -> int:
        """Clock up to which the model has heard, padding excluded."""
        return self._clock

    @property
    def is_crying(self) -> bool:
        """Whether a cry has started and not yet ended."""
        return self.gate.is_open

    def reset(self, first_sample: int = 0) -> None:
        """Start a new stream whose first sample has the clock `first_sample`; states are zeros."""
        self._state = self.runtime.initial_state()
        self._filled = 0
        self._clock = first_sample
        self._flushed = False
        self._id = ""
        self.gate.reset(first_sample)

    def feed(self, samples: Float32) -> list[CryStarted | CryEvent]:
        """Take sound, any length, and return what became known.

        Args:
            samples: (n,) float32 mono in [-1, 1] at `sample_rate_hz`.

        Raises:
            InputError: a sample is not finite or absurdly large, or the array is not mono.
            RuntimeError: the stream was flushed and not reset.
        """
        if self._flushed:
            raise RuntimeError("the stream was flushed: call reset() before feeding again")
        samples = self._checked(samples)
        found: list[CryStarted | CryEvent] = []
        start = 0
        while start < len(samples):
            if self._filled == 0 and len(samples) - start >= self.step_samples:
                found += self._step(samples[start : start + self.step_samples], self.step_samples)
                start += self.step_samples
                continue
            taken = min(self.step_samples - self._filled, len(samples) - start)
            self._pending[self._filled : self._filled + taken] = samples[start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == self.step_samples:
                self._filled = 0
                found += self._step(self._pending, self.step_samples)
        return found

    def flush(self) -> list[CryStarted | CryEvent]:
        """The stream ends: score the rest, led out by zeros, and close an open cry.

        Only frames that were heard in full reach the gate, so no event outlasts the sound.
        """
        if self._flushed:
            return []
        found: list[CryStarted | CryEvent] = []
        if self._filled:
            heard, self._filled = self._filled, 0
            self._pending[heard:] = 0.0
            found += self._step(self._pending, heard)
        found += self._events(self.gate.flush())
        self._flushed = True
        return found

    def _checked(self, samples: Float32) -> Float32:
        samples = np.ascontiguousarray(samples, np.float32)
        if samples.ndim != 1:
            raise InputError(f"expected mono samples of shape (n,), got {samples.shape}")
        # A NaN fails the comparison as well.
        fine = np.abs(samples) <= MAX_AMPLITUDE
        if not fine.all():
            bad = int(np.flatnonzero(~fine)[0])
            at_s = (self._clock + self._filled + bad) / self.sample_rate_hz
            raise InputError(
                f"expected samples between -1 and 1, got {samples[bad]} at {at_s:.3f} s"
            )
        return samples

    def _step(self, samples: Float32, heard: int) -> list[CryStarted | CryEvent]:
        output, self._state = self.runtime.step(samples, self._state)
        block = self._block(output, samples, heard)
        self._clock += heard
        if self.on_frames is not None:
            self.on_frames(block)
        whole = heard // self.gate.frame_samples
        return self._events(
            self.gate.feed(
                block.cry_probability[:whole].tolist(), block.level_dbfs[:whole].tolist()
            )
        )

    def _block(self, output: StepOutput, samples: Float32, heard: int) -> FrameBlock:
        frame = self.gate.frame_samples
        kept = math.ceil(heard / frame)
        mel_kept = math.ceil(heard * len(output.log_mel) / self.step_samples)
        return FrameBlock(
            first_sample=self._clock,
            cry_probability=output.cry_probability[:kept],
            embedding=output.embedding[:kept],
            log_mel=output.log_mel[:mel_kept],
            level_dbfs=level_dbfs(samples, frame)[:kept],
        )

    def _events(self, changes: Sequence[GateOpened | GateClosed]) -> list[CryStarted | CryEvent]:
        rate = self.sample_rate_hz
        found: list[CryStarted | CryEvent] = []
        for change in changes:
            if isinstance(change, GateOpened):
                self._id = str(ULID())
                found.append(
                    CryStarted(
                        id=self._id,
                        onset_s=change.onset_sample / rate,
                        detected_s=change.detected_sample / rate,
                        peak_probability=change.peak_probability,
                    )
                )
            else:
                found.append(
                    CryEvent(
                        id=self._id,
                        onset_s=change.onset_sample / rate,
                        offset_s=change.offset_sample / rate,
                        peak_probability=change.peak_probability,
                        mean_probability=change.mean_probability,
                        level_dbfs=change.level_dbfs,
                    )
                )
        return found


def level_dbfs(samples: Float32, frame_samples: int) -> Float32:
    """Root-mean-square level of whole frames, (n // frame_samples,), in dB of full scale.

    A sine that just reaches full scale reads -3.0; digital silence reads `SILENCE_DBFS`.
    """
    frames = samples[: len(samples) // frame_samples * frame_samples].reshape(-1, frame_samples)
    power = np.einsum("ij,ij->i", frames, frames) / frame_samples
    floor = 10.0 ** (SILENCE_DBFS / 10.0)
    decibels = 10.0 * np.log10(np.maximum(power.astype(np.float64), floor))
    return decibels.astype(np.float32)
