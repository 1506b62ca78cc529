"""From the engine's sample clock to the source's time.

The model hears an unbroken stream; what was lost before a sample is missing from its clock. This
adds it back, so that events carry the time at which they truly were.
"""

from __future__ import annotations

from bisect import bisect_right


class Timeline:
    """Where in the source each scored sample lies, all at one rate."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._at_samples: list[int] = []
        self._lost_samples: list[int] = []

    @property
    def lost_samples(self) -> int:
        """Everything lost so far."""
        return self._lost_samples[-1] if self._lost_samples else 0

    def lose(self, fed_samples: int, lost_samples: int) -> None:
        """Note that `lost_samples` are missing after the first `fed_samples` that were scored."""
        self._at_samples.append(fed_samples)
        self._lost_samples.append(self.lost_samples + lost_samples)

    def onset_s(self, stream_s: float) -> float:
        """The source's time of something that begins at `stream_s` of the unbroken stream."""
        return self._source_s(stream_s, after_loss=True)

    def offset_s(self, stream_s: float) -> float:
        """The same for an end: one that falls on a loss ended before it."""
        return self._source_s(stream_s, after_loss=False)

    def _source_s(self, stream_s: float, *, after_loss: bool) -> float:
        sample = round(stream_s * self._rate_hz)
        passed = bisect_right(self._at_samples, sample if after_loss else sample - 1)
        lost = self._lost_samples[passed - 1] if passed else 0
        return stream_s + lost / self._rate_hz
