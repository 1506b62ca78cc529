"""From frame probabilities to events: two thresholds, minimum durations, a merge gap.

The clock is an integer count of samples; frame ``j`` covers samples ``[j * n, (j + 1) * n)``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from crykit.errors import InputError, UsageError

SILENCE_DBFS = -100.0
"""Level given to digital silence, which has no logarithm."""


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a probability becomes an event.

    A run starts where the probability reaches `on_threshold` and lasts until it has stayed under
    `off_threshold` for `min_off_ms`. It is an event once it is `min_on_ms` long; a later run that
    starts within `merge_gap_ms` of an event's end belongs to that event. `smoothing_ms` is the time
    constant of a causal moving average that is taken first; 0 is none.
    """

    on_threshold: float = 0.5
    off_threshold: float = 0.3
    smoothing_ms: float = 0.0
    min_on_ms: float = 300.0
    min_off_ms: float = 300.0
    merge_gap_ms: float = 1000.0

    def __post_init__(self) -> None:
        if not 0.0 < self.off_threshold <= self.on_threshold <= 1.0:
            raise ValueError(
                "gate thresholds must satisfy 0 < off <= on <= 1, "
                f"got on {self.on_threshold:g} and off {self.off_threshold:g}"
            )
        for name in ("smoothing_ms", "min_on_ms", "min_off_ms", "merge_gap_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"gate {name} must be 0 or more milliseconds, got {value:g}")

    def override(self, **changes: float | None) -> GateSettings:
        """A copy with the given fields changed; None leaves a field as it is.

        Raises:
            UsageError: the outcome makes no sense, such as off over on.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            return msgspec.structs.replace(self, **given)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from None


@dataclass(frozen=True)
class GateOpened:
    """An event has begun. `detected_sample` is how much had been heard when that was known."""

    onset_sample: int
    detected_sample: int
    peak_probability: float


@dataclass(frozen=True)
class GateClosed:
    """An event has ended; statistics are over its frames, the level over their mean power."""

    onset_sample: int
    offset_sample: int
    peak_probability: float
    mean_probability: float
    level_dbfs: float


class _Span:
    """Statistics of consecutive frames from `onset`, in samples."""

    __slots__ = ("frames", "offset", "onset", "peak", "power", "total")

    def __init__(self, onset: int) -> None:
        self.onset = self.offset = onset
        self.frames = 0
        self.peak = self.total = self.power = 0.0

    def add(self, probability: float, power: float, frame_samples: int) -> None:
        self.offset += frame_samples
        self.frames += 1
        self.total += probability
        self.power += power
        if probability > self.peak:
            self.peak = probability

    def extend(self, other: _Span) -> None:
        """Append a span that begins where this one ends."""
        self.offset = other.offset
        self.frames += other.frames
        self.total += other.total
        self.power += other.power
        self.peak = max(self.peak, other.peak)


class EventGate:
    """Hysteresis over a stream of frame probabilities.

    Events come out in order, never overlap, and are never shorter than `min_on_ms`. How the frames
    are cut into calls of `feed` makes no difference. The onset is walked back from the first frame
    over `on_threshold` to where the probability rose over `off_threshold`, by `min_on_ms` at most:
    a slow rise is part of the cry, a long murmur before it is not.

    Args:
        settings: thresholds and durations.
        frame_samples: samples a frame covers.
        sample_rate_hz: of those samples.
        first_sample: clock of the first frame.
    """

    def __init__(
        self,
        settings: GateSettings,
        frame_samples: int,
        sample_rate_hz: int,
        first_sample: int = 0,
    ) -> None:
        self.settings = settings
        self.frame_samples = frame_samples
        self.sample_rate_hz = sample_rate_hz
        self._min_on = self._samples(settings.min_on_ms)
        self._min_off = self._samples(settings.min_off_ms)
        self._merge_gap = self._samples(settings.merge_gap_ms)
        frame_ms = 1000.0 * frame_samples / sample_rate_hz
        tau = settings.smoothing_ms
        self._follow = 1.0 - math.exp(-frame_ms / tau) if tau > 0 else 1.0
        self._walk_back = math.ceil(self._min_on / frame_samples)
        self.reset(first_sample)

    def _samples(self, duration_ms: float) -> int:
        return math.ceil(duration_ms * self.sample_rate_hz / 1000.0)

    @property
    def is_open(self) -> bool:
        """Whether an event has been opened and not yet closed."""
        return self._event is not None

    @property
    def clock_sample(self) -> int:
        """End of the last frame fed, in samples."""
        return self._clock

    def reset(self, first_sample: int = 0) -> None:
        """Forget everything; the next frame starts at `first_sample`."""
        self._clock = first_sample
        self._smoothed: float | None = None
        self._rise: deque[tuple[float, float]] = deque()
        self._run: _Span | None = None  # over the thresholds now, or within min_off of it
        self._gap: _Span | None = None  # frames since, which belong to the run if it goes on
        self._event: _Span | None = None  # opened, not yet closed
        self._between: _Span | None = None  # frames after the event, before the next run

    def feed(
        self, probabilities: Iterable[float], levels_dbfs: Iterable[float]
    ) -> list[GateOpened | GateClosed]:
        """Take frames in order, any number.

        Args:
            probabilities: one a frame, in [0, 1].
            levels_dbfs: one a frame.

        Raises:
            InputError: a probability is not finite.
        """
        found: list[GateOpened | GateClosed] = []
        for probability, level_dbfs in zip(probabilities, levels_dbfs, strict=True):
            if not math.isfinite(probability):
                raise InputError(
                    f"frame at sample {self._clock}: expected a probability, got {probability}"
                )
            self._frame(float(probability), 10.0 ** (float(level_dbfs) / 10.0), found)
        return found

    def flush(self) -> list[GateOpened | GateClosed]:
        """The stream ends here: close what is open, drop what is too short."""
        found: list[GateOpened | GateClosed] = []
        self._end_run()
        self._close(found)
        self._rise.clear()
        return found

    def _frame(
        self, probability: float, power: float, found: list[GateOpened | GateClosed]
    ) -> None:
        last = probability if self._smoothed is None else self._smoothed
        value = self._smoothed = last + self._follow * (probability - last)
        start, self._clock = self._clock, self._clock + self.frame_samples
        if self._run is not None:
            self._continue_run(self._run, value, probability, power)
        else:
            self._await_run(value, probability, power, start)
        run = self._run
        if run is None:
            self._close_if_over(found)
        elif run.offset - run.onset >= self._min_on and self._gap is None:
            self._accept(run, found)

    def _continue_run(self, run: _Span, value: float, probability: float, power: float) -> None:
        if value >= self.settings.off_threshold:
            if self._gap is not None:
                run.extend(self._gap)
                self._gap = None
            run.add(probability, power, self.frame_samples)
            return
        if self._gap is None:
            self._gap = _Span(run.offset)
        self._gap.add(probability, power, self.frame_samples)
        if self._gap.offset - self._gap.onset >= self._min_off:
            self._end_run()

    def _await_run(self, value: float, probability: float, power: float, start: int) -> None:
        rise = self._rise
        if value >= self.settings.on_threshold:
            run = self._run = _Span(start - len(rise) * self.frame_samples)
            for earlier in rise:
                run.add(*earlier, self.frame_samples)
            rise.clear()
            run.add(probability, power, self.frame_samples)
            return
        rise.append((probability, power))
        keep = self._walk_back if value >= self.settings.off_threshold else 0
        while len(rise) > keep:
            passed = rise.popleft()
            if self._between is not None:
                self._between.add(*passed, self.frame_samples)

    def _accept(self, run: _Span, found: list[GateOpened | GateClosed]) -> None:
        """A run long enough opens an event, or goes on with the one before it."""
        event = self._event
        if event is run:
            return
        if event is None or self._between is None:
            self._event = run
            found.append(GateOpened(run.onset, self._clock, run.peak))
            return
        # The pause had not yet outlasted the merge gap, else the event would be closed.
        event.extend(self._between)
        event.extend(run)
        self._run, self._between = event, None

    def _end_run(self) -> None:
        """The run is over: its event now waits for one to merge with, or it was too short."""
        run, gap = self._run, self._gap
        if run is None:
            return
        self._run = self._gap = None
        if self._event is run:
            self._between = gap or _Span(run.offset)
        elif self._between is not None:
            self._between.extend(run)
            if gap is not None:
                self._between.extend(gap)

    def _close_if_over(self, found: list[GateOpened | GateClosed]) -> None:
        # A rise that may yet become a run is not in `_between`: its onset is what counts.
        between = self._between
        if between is not None and between.offset - between.onset >= self._merge_gap:
            self._close(found)

    def _close(self, found: list[GateOpened | GateClosed]) -> None:
        event = self._event
        if event is None:
            return
        self._event = self._between = None
        power = event.power / event.frames
        level = 10.0 * math.log10(power) if power > 0.0 else SILENCE_DBFS
        found.append(
            GateClosed(event.onset, event.offset, event.peak, event.total / event.frames, level)
        )
