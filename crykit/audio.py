"""Sound files and raw PCM as mono blocks at the model's rate, in constant memory."""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from crykit.errors import InputError, UsageError

Float32 = NDArray[np.float32]

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 1_536_000
MAX_CHANNELS = 1024
BLOCK_S = 1.0
LIVE_BLOCK_S = 0.1
"""Raw PCM may come from a microphone: it is passed on in small blocks, as it arrives."""
PCM_FORMATS = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
_PCM_GAIN = {"s16le": 1.0 / 32768.0, "f32le": 1.0}
_CONTAINER_MAGIC = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3"}


class StreamResampler:
    """Resamples a mono stream block by block; chunked equals whole.

    Args:
        rate_in_hz, rate_out_hz: sample rates; equal rates pass through untouched.
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int) -> None:
        self.rate_in_hz = rate_in_hz
        self.rate_out_hz = rate_out_hz
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._stream = None
        if self.rate_in_hz != self.rate_out_hz:
            import soxr

            self._stream = soxr.ResampleStream(
                self.rate_in_hz, self.rate_out_hz, 1, dtype="float32", quality="HQ"
            )

    def feed(self, samples: Float32) -> Float32:
        """(n,) in, whatever is ready out."""
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def flush(self) -> Float32:
        """The rest; the stream is over."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


class _Reader(Protocol):
    def blocks(self) -> Iterator[Float32]:
        """(n, channels) at the source's rate."""
        ...


class AudioSource:
    """An opened recording; iterate it once for (n,) float32 mono blocks at `sample_rate_hz`.

    Iterating raises `InputError` where a sample is not finite, and at the end of a file that is
    shorter than its header says: what could be read has been yielded by then.
    """

    def __init__(
        self,
        name: str,
        reader: _Reader,
        *,
        source_rate_hz: int,
        channels: int,
        sample_rate_hz: int,
        expected_frames: int | None,
    ) -> None:
        self.name = name
        self.source_rate_hz = source_rate_hz
        self.channels = channels
        self.sample_rate_hz = sample_rate_hz
        self.expected_frames = expected_frames
        self.frames_read = 0
        self._reader = reader

    @property
    def duration_s(self) -> float:
        """Seconds read so far: the whole duration once the iteration is over."""
        return self.frames_read / self.source_rate_hz

    @property
    def expected_duration_s(self) -> float | None:
        """Seconds by the header, None for a stream."""
        return None if self.expected_frames is None else self.expected_frames / self.source_rate_hz

    def __iter__(self) -> Iterator[Float32]:
        resampler = StreamResampler(self.source_rate_hz, self.sample_rate_hz)
        given, broken = 0, None
        try:
            for block in self._reader.blocks():
                mono = self._mono(block)
                self.frames_read += len(mono)
                ready = resampler.feed(mono)
                given += len(ready)
                if len(ready):
                    yield ready
        except _CutShortError as error:
            broken = error
        # Rounding may leave the resampler a sample over: the sound lasts as long as the file does.
        wanted = math.floor(self.frames_read * self.sample_rate_hz / self.source_rate_hz)
        rest = resampler.flush()[: max(0, wanted - given)]
        if len(rest):
            yield rest
        self._check_end(broken)

    def _mono(self, block: Float32) -> Float32:
        mono = block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            bad = self.frames_read + int(np.flatnonzero(~np.isfinite(mono))[0])
            raise InputError(
                f"{self.name}: a NaN or infinite sample at {bad / self.source_rate_hz:.3f} s; "
                "write the file anew"
            )
        return np.ascontiguousarray(mono)

    def _check_end(self, broken: _CutShortError | None) -> None:
        if self.frames_read == 0:
            why = f" ({broken})" if broken else ""
            raise InputError(f"{self.name}: holds no sound{why}")
        if broken is not None:
            raise InputError(
                f"{self.name}: damaged after {self.duration_s:.1f} s ({broken}); "
                "what came before was read"
            )


class _CutShortError(Exception):
    """A decoder gave up in the middle."""


class _FileReader:
    """soundfile, a second at a time."""

    def __init__(self, file: object, frames: int, rate_hz: int) -> None:
        self._file = file
        self._frames = frames
        self._block = max(1, round(BLOCK_S * rate_hz))

    def blocks(self) -> Iterator[Float32]:
        import soundfile

        file = self._file
        assert isinstance(file, soundfile.SoundFile)
        read = 0
        while True:
            try:
                block = file.read(self._block, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise _CutShortError(str(error).rstrip(".")) from None
            if len(block) == 0:
                break
            read += len(block)
            yield np.asarray(block, np.float32)
        # A compressed file's length is an estimate of the decoder: some play is not damage.
        if self._frames - read > self._block:
            raise _CutShortError(f"its header promises {self._frames / file.samplerate:.1f} s")


class _PcmReader:
    """Interleaved raw PCM, passed on as it arrives."""

    def __init__(self, stream: IO[bytes], name: str, rate_hz: int, channels: int, kind: str):
        self._stream = stream
        self._name = name
        self._channels = channels
        self._kind = kind
        self._frame_bytes = PCM_FORMATS[kind].itemsize * channels
        self._want_bytes = max(1, round(LIVE_BLOCK_S * rate_hz)) * self._frame_bytes

    def blocks(self) -> Iterator[Float32]:
        read1 = getattr(self._stream, "read1", self._stream.read)
        held, first = b"", True
        while data := read1(self._want_bytes):
            held += data
            if first and len(held) >= 4:
                _refuse_container(self._name, held)
                first = False
            whole = len(held) // self._frame_bytes * self._frame_bytes
            if whole:
                yield self._decode(held[:whole])
                held = held[whole:]

    def _decode(self, data: bytes) -> Float32:
        values = np.frombuffer(data, PCM_FORMATS[self._kind]).astype(np.float32)
        gain = _PCM_GAIN[self._kind]
        return (values if gain == 1.0 else values * np.float32(gain)).reshape(-1, self._channels)


def _refuse_container(name: str, head: bytes) -> None:
    for magic, what in _CONTAINER_MAGIC.items():
        if head.startswith(magic):
            raise InputError(
                f"{name}: expected raw PCM, got a {what} file; give its path, or decode it first"
            )


@contextmanager
def open_audio(
    path: str | Path,
    *,
    sample_rate_hz: int = 16_000,
    rate_hz: int | None = None,
    channels: int = 1,
    pcm_format: str = "s16le",
    stdin: IO[bytes] | None = None,
) -> Generator[AudioSource]:
    """Open a sound file, or ``-`` for raw PCM on standard input.

    Args:
        path: anything soundfile reads, at any rate, with any number of channels.
        sample_rate_hz: the rate wanted.
        rate_hz, channels, pcm_format: of raw PCM; `rate_hz` defaults to the rate wanted.
        stdin: read instead of standard input.

    Raises:
        InputError: the file is missing, empty, no sound, or of an impossible rate.
        UsageError: the description of the raw PCM makes no sense.
    """
    if str(path) == "-":
        rate = sample_rate_hz if rate_hz is None else rate_hz
        if pcm_format not in PCM_FORMATS:
            raise UsageError(f"raw format {pcm_format!r}: expected {' or '.join(PCM_FORMATS)}")
        if not (MIN_RATE_HZ <= rate <= MAX_RATE_HZ and 1 <= channels <= MAX_CHANNELS):
            raise UsageError(f"raw PCM of {rate} Hz, {channels} channels: impossible")
        stream = sys.stdin.buffer if stdin is None else stdin
        yield AudioSource(
            "-",
            _PcmReader(stream, "standard input", rate, channels, pcm_format),
            source_rate_hz=rate,
            channels=channels,
            sample_rate_hz=sample_rate_hz,
            expected_frames=None,
        )
        return
    with _open_file(Path(path), sample_rate_hz) as source:
        yield source


@contextmanager
def _open_file(path: Path, sample_rate_hz: int) -> Generator[AudioSource]:
    import soundfile

    _check_readable(path)
    try:
        file = soundfile.SoundFile(os.fspath(path))
    except (soundfile.SoundFileError, TypeError) as error:
        reason = str(error).rpartition(": ")[2].rstrip(".")
        raise InputError(f"{path}: expected a sound file (WAV, FLAC, Ogg, MP3): {reason}") from None
    with file:
        rate = file.samplerate
        if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise InputError(f"{path}: {rate} Hz; expected {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        # libsndfile says "unknown length" with the largest number there is.
        frames = file.frames if 0 <= file.frames < 2**62 else 0
        yield AudioSource(
            str(path),
            _FileReader(file, frames, rate),
            source_rate_hz=rate,
            channels=file.channels,
            sample_rate_hz=sample_rate_hz,
            expected_frames=frames or None,
        )


def _check_readable(path: Path) -> None:
    """The system's own words for what soundfile reports as 'System error'."""
    if path.is_dir():
        raise InputError(f"{path}: expected a sound file, got a folder")
    try:
        if path.exists() and not path.is_file():
            return  # opening a pipe to look at it would take its content away
        with open(path, "rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: the file is empty")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r}: {error}") from None
