"""Bounded buffer between the sound card's callback and the engine thread.

When it is full the newest sound is dropped and counted, and the reader learns exactly where in the
stream it is missing: a loss is never hidden, and the clock of what follows stays right.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RingBlock:
    """What the reader got: `samples` (n, channels), and how many are missing just before them."""

    samples: Samples
    lost_before_samples: int


class SampleRing:
    """One writer, one reader; `write` copies and returns, it never waits for the reader to work.

    The lock is held only while at most one block is copied, so that the callback cannot be held up
    by the network.
    """

    def __init__(self, capacity_samples: int, channels: int) -> None:
        if capacity_samples < 1 or channels < 1:
            raise ValueError(f"a ring of {capacity_samples} samples x {channels} holds nothing")
        self._buffer = np.zeros((capacity_samples, channels), dtype=np.float32)
        self._capacity_samples = capacity_samples
        self._written_samples = 0
        self._read_samples = 0
        self._lost_samples = 0
        self._losses: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    @property
    def waiting_samples(self) -> int:
        """How much the reader has still to fetch."""
        return self._written_samples - self._read_samples

    @property
    def lost_samples(self) -> int:
        """Everything that was ever dropped here or reported by `count_lost`."""
        return self._lost_samples

    def write(self, block: Samples) -> None:
        """Copy `block` (n, channels); what does not fit is counted as lost."""
        with self._lock:
            free = self._capacity_samples - self.waiting_samples
            kept = min(len(block), free)
            start = self._written_samples % self._capacity_samples
            head = min(kept, self._capacity_samples - start)
            self._buffer[start : start + head] = block[:head]
            self._buffer[: kept - head] = block[head:kept]
            self._written_samples += kept
            self._count_lost(len(block) - kept)

    def count_lost(self, samples: int) -> None:
        """Note that `samples` went missing before the next `write` (the driver overran)."""
        with self._lock:
            self._count_lost(samples)

    def read(self, max_samples: int) -> RingBlock:
        """Fetch what is there, at most `max_samples`, and never across a loss."""
        with self._lock:
            lost = 0
            while self._losses and self._losses[0][0] <= self._read_samples:
                lost += self._losses.popleft()[1]
            end = min(self._written_samples, self._read_samples + max_samples)
            if self._losses:
                end = min(end, self._losses[0][0])
            where = np.arange(self._read_samples, end) % self._capacity_samples
            samples = self._buffer[where]
            self._read_samples = end
            return RingBlock(samples, lost)

    def _count_lost(self, samples: int) -> None:
        if samples <= 0:
            return
        self._lost_samples += samples
        if self._losses and self._losses[-1][0] == self._written_samples:
            samples += self._losses.pop()[1]
        self._losses.append((self._written_samples, samples))
