"""Where sound comes from: a microphone, a file, raw samples on stdin, or a generator.

A source yields mono float32 blocks at the model's rate to the engine thread, and ends soon after
`stop` is set with everything that was already captured delivered.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np

from crykit.audio import AudioSource, StreamResampler, open_audio
from crykit.errors import DeviceError
from crykit_app.capture import Microphone, find_device
from crykit_app.ring import Samples

POLL_S = 0.04
"""How often the engine looks into the ring: fewer wake-ups than one per callback, unnoticed in a
step of 160 ms."""

SILENT_DRIVER_S = 5.0
"""A microphone that delivers nothing for so long is taken for unplugged."""

MAX_SPEED = float("inf")

_PACE_S = 0.1


@dataclass(frozen=True, slots=True)
class Block:
    """Samples (n,) float32 mono, and how many are missing just before them, all at one rate."""

    samples: Samples
    lost_samples: int = 0


class Source(Protocol):
    """What the engine needs of a source; `open` in the main thread, `blocks` in the engine's."""

    @property
    def name(self) -> str:
        """What event lines and the log call it."""
        ...

    @property
    def kind(self) -> str:
        """One word for the screen: microphone, file, stdin, synthetic."""
        ...

    @property
    def live(self) -> bool:
        """Whether sound arrives by itself and is lost if nobody fetches it."""
        ...

    @property
    def started_at(self) -> datetime | None:
        """Wall clock of the first sample; None where that is unknown."""
        ...

    @property
    def length_s(self) -> float | None:
        """How long it will last; None where that is unknown."""
        ...

    @property
    def behind_s(self) -> float:
        """Captured sound that has not been fetched yet."""
        ...

    def open(self, sample_rate_hz: int) -> None:
        """Begin. Raises `DeviceError` or `InputError`."""
        ...

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Blocks at `sample_rate_hz` until the end or `stop`."""
        ...

    def close(self) -> None:
        """Let go of the device or file; may be called twice and after a failed `open`."""
        ...


class MicrophoneSource:
    """The microphone called `wanted` (number or part of the name; None is the default one)."""

    kind = "microphone"
    live = True
    length_s = None

    def __init__(self, wanted: str | None = None, *, ring_seconds: float = 10.0) -> None:
        self._wanted = wanted
        self._ring_seconds = ring_seconds
        self._microphone: Microphone | None = None
        self._model_rate_hz = 0
        self.name = wanted or "microphone"
        self.started_at: datetime | None = None

    @property
    def behind_s(self) -> float:
        microphone = self._microphone
        return microphone.ring.waiting_samples / microphone.sample_rate_hz if microphone else 0.0

    @property
    def sample_rate_hz(self) -> int:
        """The device's own rate; 0 before `open`."""
        return self._microphone.sample_rate_hz if self._microphone else 0

    def open(self, sample_rate_hz: int) -> None:
        self._model_rate_hz = sample_rate_hz
        device = find_device(self._wanted)
        self.name = device.name
        self._microphone = Microphone(device, ring_seconds=self._ring_seconds)
        self._microphone.open()

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        microphone = self._microphone
        if microphone is None:
            raise RuntimeError("blocks() before open()")
        resampler = StreamResampler(microphone.sample_rate_hz, self._model_rate_hz)
        scale = self._model_rate_hz / microphone.sample_rate_hz
        lost_device = 0
        lost_told = 0
        heard_at = time.monotonic()
        while True:
            stopping = stop.is_set()
            if stopping:
                microphone.close()
            if self.started_at is None and self.behind_s > 0:
                # Not when it was opened: a sound server may take seconds to deliver the first.
                self.started_at = datetime.now().astimezone() - timedelta(seconds=self.behind_s)
            got = microphone.ring.read(microphone.sample_rate_hz)
            lost_device += got.lost_before_samples
            if len(got.samples):
                heard_at = time.monotonic()
                # Rounded on the running total, so that the clock does not drift over many losses.
                lost = round(lost_device * scale) - lost_told
                lost_told += lost
                yield Block(resampler.feed(got.samples.mean(axis=1, dtype=np.float32)), lost)
            elif stopping:
                yield Block(resampler.flush())
                return
            elif time.monotonic() - heard_at > SILENT_DRIVER_S or not microphone.alive:
                microphone.close()
                yield Block(resampler.flush())
                raise DeviceError(
                    f"the microphone {self.name!r} stopped delivering sound; plug it in again "
                    "and start anew (see: crykit devices)"
                )
            else:
                stop.wait(POLL_S)

    def close(self) -> None:
        if self._microphone is not None:
            self._microphone.close()


class GeneratedSource:
    """Mono float32 blocks made by `make(sample_rate_hz)`, played at `speed` times real time."""

    live = False

    def __init__(
        self,
        name: str,
        make: Callable[[int], Iterable[Samples]],
        *,
        speed: float = 1.0,
        kind: str = "synthetic",
        started_at: datetime | None = None,
        length_s: float | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.started_at = started_at
        self.length_s = length_s
        self.behind_s = 0.0
        self._make = make
        self._speed = speed
        self._rate_hz = 0

    def open(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        for samples in paced(self._make(self._rate_hz), self._rate_hz, self._speed, stop):
            yield Block(samples)

    def close(self) -> None:
        """Nothing is held."""


class FileSource:
    """A sound file in place of the microphone, at `speed` times real time (`MAX_SPEED`: at once).

    `started_at` is when the recording began, if that is known.
    """

    kind = "file"
    live = False
    behind_s = 0.0

    def __init__(
        self, path: str | Path, *, speed: float = 1.0, started_at: datetime | None = None
    ) -> None:
        self._path = Path(path)
        self._speed = speed
        self._rate_hz = 0
        self._audio: AudioSource | None = None
        self._held = ExitStack()
        self.name = self._path.name
        self.started_at = started_at
        self.length_s: float | None = None

    def open(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._audio = self._held.enter_context(
            open_audio(self._path, sample_rate_hz=sample_rate_hz)
        )
        self.length_s = self._audio.expected_duration_s

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        if self._audio is None:
            raise RuntimeError("blocks() before open()")
        for samples in paced(self._audio, self._rate_hz, self._speed, stop):
            yield Block(samples)

    def close(self) -> None:
        self._held.close()


class PcmSource:
    """Raw PCM on standard input, as fast as it comes; `rate_hz` defaults to the model's."""

    kind = "stdin"
    live = False
    length_s = None
    behind_s = 0.0
    started_at = None
    name = "-"

    def __init__(
        self, *, rate_hz: int | None = None, channels: int = 1, pcm_format: str = "s16le"
    ) -> None:
        self._rate_hz = rate_hz
        self._channels = channels
        self._format = pcm_format
        self._input = _StoppableInput(sys.stdin.buffer)
        self._audio: AudioSource | None = None
        self._held = ExitStack()

    def open(self, sample_rate_hz: int) -> None:
        self._audio = self._held.enter_context(
            open_audio(
                "-",
                sample_rate_hz=sample_rate_hz,
                rate_hz=self._rate_hz,
                channels=self._channels,
                pcm_format=self._format,
                stdin=cast("IO[bytes]", self._input),
            )
        )

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        if self._audio is None:
            raise RuntimeError("blocks() before open()")
        self._input.stop = stop
        for samples in self._audio:
            yield Block(samples)

    def close(self) -> None:
        self._held.close()


class _StoppableInput:
    """Standard input whose `read1` ends when `stop` is set, though the writer may be silent."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.stop = threading.Event()

    def read1(self, size: int) -> bytes:
        # Not the buffered reader: what it holds back would be invisible to select.
        descriptor = self._stream.fileno()
        while not self.stop.is_set():
            if sys.platform == "win32" or select.select([descriptor], [], [], _PACE_S)[0]:
                return os.read(descriptor, size)
        return b""

    read = read1


def paced(
    blocks: Iterable[Samples], rate_hz: int, speed: float, stop: threading.Event
) -> Iterator[Samples]:
    """Cut `blocks` into pieces that are let out no faster than `speed` times real time."""
    if speed == MAX_SPEED:
        for block in blocks:
            if stop.is_set():
                return
            yield block
        return
    piece_samples = max(1, round(_PACE_S * rate_hz * max(1.0, speed)))
    began = time.monotonic()
    played = 0
    for block in blocks:
        for start in range(0, len(block), piece_samples):
            piece = block[start : start + piece_samples]
            played += len(piece)
            # Real sound is there only after it has been: wait before handing it over.
            if stop.wait(max(0.0, began + played / rate_hz / speed - time.monotonic())):
                return
            yield piece


def wall_clock(source: Source, position_s: float) -> datetime | None:
    """When `position_s` of `source` was, if its start is known."""
    if source.started_at is None:
        return None
    return source.started_at + timedelta(seconds=position_s)
