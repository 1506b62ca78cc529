"""The microphone: PortAudio through sounddevice, imported only when sound is wanted.

The callback copies one block into a `SampleRing` and does nothing else. The device runs at its own
rate; the engine thread resamples. Every way in which this fails is one `DeviceError` with its fix.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crykit.errors import DeviceError
from crykit_app.ring import SampleRing

RING_SECONDS = 10
"""How long the engine may stall before sound is lost."""

MAX_CHANNELS = 8

DRIVER_LATENCY_S = 0.2
"""Asked of the driver: about twenty callbacks a second and room for a busy moment. PortAudio's own
"high" gave six times as many through PulseAudio, and began a second late."""

# PortAudio's error numbers (portaudio.h, PaErrorCode) that have a fix of their own.
_INVALID_CHANNELS = -9998
_INVALID_RATE = -9997
_INVALID_DEVICE = -9996
_DEVICE_UNAVAILABLE = -9985


@dataclass(frozen=True, slots=True)
class InputDevice:
    """One sound input as PortAudio names it."""

    index: int
    name: str
    host_api: str
    channels: int
    sample_rate_hz: int
    is_default: bool


@contextlib.contextmanager
def _silent_c_library() -> Generator[None]:
    """Keep what ALSA's C code prints about devices that it does not find off the terminal."""
    if sys.platform == "win32":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_sounddevice() -> Any:
    """Import sounddevice; without the PortAudio library that raises, which is said with its fix."""
    try:
        with _silent_c_library():
            import sounddevice  # pyright: ignore[reportMissingTypeStubs]
    except OSError as error:
        raise DeviceError(
            "sound input needs the PortAudio library, which is not installed; on Debian, Ubuntu "
            "or Raspberry Pi OS: sudo apt install libportaudio2"
        ) from error
    except ImportError as error:
        raise DeviceError(
            "sound input needs the Python package sounddevice; pip install sounddevice"
        ) from error
    return sounddevice


def input_devices() -> list[InputDevice]:
    """Every device that can record; an empty list if there is none."""
    sounddevice = load_sounddevice()
    default_index = int(sounddevice.default.device[0])
    try:
        apis = sounddevice.query_hostapis()
        found = sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise DeviceError(
            f"the sound system does not answer ({_reason(error)}); {no_device_hint()}"
        ) from (error)
    return [
        InputDevice(
            index=int(entry["index"]),
            name=str(entry["name"]),
            host_api=str(apis[entry["hostapi"]]["name"]),
            channels=int(entry["max_input_channels"]),
            sample_rate_hz=round(float(entry["default_samplerate"])),
            is_default=int(entry["index"]) == default_index,
        )
        for entry in found
        if entry["max_input_channels"] > 0
    ]


def find_device(wanted: str | None) -> InputDevice:
    """The device called `wanted` (number, or part of a name), or the default one.

    Raises `DeviceError` if there is no microphone, none of that name, or several.
    """
    devices = input_devices()
    if not devices:
        raise DeviceError(f"no microphone found; {no_device_hint()}")
    if wanted is None:
        return next((device for device in devices if device.is_default), devices[0])
    if wanted.isdecimal():
        matches = [device for device in devices if device.index == int(wanted)]
    else:
        folded = wanted.casefold()
        exact = [device for device in devices if device.name.casefold() == folded]
        matches = exact or [device for device in devices if folded in device.name.casefold()]
    if not matches:
        known = ", ".join(f"{device.index} {device.name!r}" for device in devices)
        raise DeviceError(f"no microphone called {wanted!r}; there are: {known}")
    # The same hardware often appears once per host API: the first is PortAudio's preferred one.
    if len({device.name for device in matches}) > 1:
        known = ", ".join(f"{device.index} {device.name!r}" for device in matches)
        raise DeviceError(f"{wanted!r} means several microphones: {known}; give the number")
    return matches[0]


class Microphone:
    """A running capture: `ring` fills at `sample_rate_hz` until `close`."""

    def __init__(self, device: InputDevice, *, ring_seconds: float = RING_SECONDS) -> None:
        self.device = device
        self.sample_rate_hz = device.sample_rate_hz
        self._ring_seconds = ring_seconds
        self._next_adc_time_s: float | None = None
        self._stream: Any = None
        self.ring = SampleRing(1, 1)

    def open(self) -> None:
        """Start recording. Raises `DeviceError` if the device is busy, gone or forbidden."""
        sounddevice = load_sounddevice()
        # Some hardware has no mono mode: ask for one channel, then for what it has.
        choices = sorted({1, min(self.device.channels, MAX_CHANNELS)})
        for channels in choices:
            self.ring = SampleRing(round(self._ring_seconds * self.sample_rate_hz), channels)
            try:
                with _silent_c_library():
                    self._stream = sounddevice.InputStream(
                        device=self.device.index,
                        samplerate=self.sample_rate_hz,
                        channels=channels,
                        dtype="float32",
                        latency=DRIVER_LATENCY_S,
                        callback=self._callback,
                    )
                    self._stream.start()
                return
            except sounddevice.PortAudioError as error:
                self.close()
                if channels != choices[-1] and _code(error) == _INVALID_CHANNELS:
                    continue
                raise _open_error(self.device, error) from error

    @property
    def alive(self) -> bool:
        """Whether the driver is still delivering; False once it is unplugged or closed."""
        return self._stream is not None and bool(self._stream.active)

    def close(self) -> None:
        """Stop recording; what is in the ring can still be read."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with _silent_c_library():
                stream.close(ignore_errors=True)

    def _callback(self, block: Any, frames: int, time_info: Any, status: Any) -> None:
        if status.input_overflow:
            self.ring.count_lost(self._gap_samples(time_info.inputBufferAdcTime, frames))
        self.ring.write(block)
        self._next_adc_time_s = time_info.inputBufferAdcTime + frames / self.sample_rate_hz

    def _gap_samples(self, adc_time_s: float, frames: int) -> int:
        """How much the driver dropped, by its own clock; one block where that clock is no help."""
        if self._next_adc_time_s is None or adc_time_s <= 0:
            return frames
        gap_s = adc_time_s - self._next_adc_time_s
        return max(1, round(gap_s * self.sample_rate_hz))


def _open_error(device: InputDevice, error: Exception) -> DeviceError:
    code = _code(error)
    label = f"the microphone {device.name!r}"
    if code == _DEVICE_UNAVAILABLE:
        return DeviceError(
            f"{label} is in use by another program or was unplugged; close that program or choose "
            "another with --device (see: crykit devices)"
        )
    if code in (_INVALID_RATE, _INVALID_CHANNELS):
        return DeviceError(
            f"{label} refuses its own setting ({_reason(error)}); choose another with --device, "
            "for example the one called 'default' or 'pulse' (see: crykit devices)"
        )
    if code == _INVALID_DEVICE:
        return DeviceError(f"{label} is gone; look for it with: crykit devices")
    return DeviceError(f"{label} cannot be opened ({_reason(error)}); {no_device_hint()}")


def _code(error: Exception) -> int | None:
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else None


def _reason(error: Exception) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split()).removeprefix("Error opening InputStream: ")


def no_device_hint() -> str:
    """What most likely helps on this machine when there is no sound input."""
    if sys.platform == "darwin":
        return (
            "plug one in, and allow the terminal the microphone in System Settings > Privacy & "
            "Security > Microphone"
        )
    if sys.platform == "win32":
        return "plug one in, and allow microphone access in Settings > Privacy > Microphone"
    if any(not os.access(path, os.R_OK | os.W_OK) for path in Path("/dev/snd").glob("pcm*c")):
        return 'this user may not read /dev/snd: sudo usermod -aG audio "$USER", then log in again'
    return "plug one in (check with: arecord -l), or replay a file with: crykit listen --input FILE"
