"""From the sound card's callback to samples with a true clock."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crykit.errors import DeviceError
from crykit_app.capture import InputDevice, Microphone
from crykit_app.ring import SampleRing
from crykit_app.sources import paced
from crykit_app.timeline import Timeline

DEVICE = InputDevice(0, "test", "ALSA", channels=2, sample_rate_hz=48_000, is_default=True)


def ramp(first: int, count: int) -> np.ndarray:
    """(count, 1) whose values are their own positions."""
    return np.arange(first, first + count, dtype=np.float32)[:, None]


@given(
    capacity=st.integers(1, 40),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 25)), max_size=60),
)
def test_every_sample_is_read_in_order_or_counted_where_it_is_missing(
    capacity: int, steps: list[tuple[bool, int]]
) -> None:
    ring = SampleRing(capacity, 1)
    written = position = 0
    for is_write, count in [*steps, (False, 10**6), (False, 10**6), (False, 10**6)]:
        if is_write:
            ring.write(ramp(written, count))
            written += count
            continue
        block = ring.read(count)
        position += block.lost_before_samples
        np.testing.assert_array_equal(block.samples, ramp(position, len(block.samples)))
        position += len(block.samples)
    while True:
        block = ring.read(10**6)
        if not len(block.samples) and not block.lost_before_samples:
            break
        position += block.lost_before_samples
        np.testing.assert_array_equal(block.samples, ramp(position, len(block.samples)))
        position += len(block.samples)
    assert position == written
    assert ring.waiting_samples == 0


def test_a_read_never_spans_a_loss() -> None:
    ring = SampleRing(10, 1)
    ring.write(ramp(0, 8))
    ring.count_lost(100)
    ring.write(ramp(108, 2))
    first, second = ring.read(50), ring.read(50)
    assert (len(first.samples), first.lost_before_samples) == (8, 0)
    assert (len(second.samples), second.lost_before_samples) == (2, 100)
    assert ring.lost_samples == 100


def test_a_writer_and_a_reader_at_once_lose_nothing_unsaid() -> None:
    ring = SampleRing(64, 1)
    total = 200_000
    done = threading.Event()

    def write() -> None:
        for first in range(0, total, 40):
            ring.write(ramp(first, 40))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    position = 0
    while not (done.is_set() and ring.waiting_samples == 0):
        block = ring.read(1000)
        position += block.lost_before_samples
        np.testing.assert_array_equal(block.samples, ramp(position, len(block.samples)))
        position += len(block.samples)
    writer.join()
    assert position + ring.read(1).lost_before_samples == total


def callback(microphone: Microphone, count: int, adc_time_s: float, overflow: bool) -> None:
    """What PortAudio does."""
    microphone._callback(
        np.zeros((count, 1), np.float32),
        count,
        SimpleNamespace(inputBufferAdcTime=adc_time_s),
        SimpleNamespace(input_overflow=overflow),
    )


def test_a_driver_overrun_is_counted_by_the_drivers_clock() -> None:
    microphone = Microphone(DEVICE)
    microphone.ring = SampleRing(48_000, 1)
    callback(microphone, 480, 5.0, overflow=False)
    callback(microphone, 480, 5.260, overflow=True)  # expected at 5.010
    assert microphone.ring.lost_samples == 12_000
    callback(microphone, 480, 0.0, overflow=True)  # a driver without a clock: a block at least
    assert microphone.ring.lost_samples == 12_480


def test_times_after_a_loss_are_the_sources() -> None:
    timeline = Timeline(16_000)
    timeline.lose(16_000, 8_000)
    timeline.lose(32_000, 16_000)
    assert timeline.onset_s(0.5) == 0.5
    assert timeline.onset_s(1.0) == 1.5
    assert timeline.offset_s(1.0) == 1.0
    assert timeline.offset_s(1.5) == 2.0
    assert timeline.onset_s(3.0) == 4.5
    assert timeline.lost_samples == 24_000


def test_pacing_keeps_to_real_time_and_stops_at_once() -> None:
    import time

    blocks = [np.zeros(16_000, np.float32)]
    began = time.monotonic()
    out = np.concatenate(list(paced(blocks, 16_000, 4.0, threading.Event())))
    assert len(out) == 16_000
    assert 0.24 <= time.monotonic() - began < 1.0
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    list(paced([np.zeros(16_000 * 60, np.float32)], 16_000, 1.0, stop))
    assert time.monotonic() - began < 2.0


def microphones() -> int | None:
    """How many there are; None without PortAudio."""
    from crykit_app.capture import input_devices

    try:
        return len(input_devices())
    except DeviceError:
        return None


@pytest.mark.skipif(microphones() != 0, reason="this machine has a microphone, or no PortAudio")
@pytest.mark.parametrize("command", [["devices"], ["listen", "--headless", "--no-store"]])
def test_no_microphone_is_one_line_with_its_fix(
    command: list[str], run_cli, bundle_path: Path
) -> None:
    model = [] if command[0] == "devices" else ["--model", bundle_path]
    done = run_cli(*command, *model)
    assert done.returncode == 3
    assert done.stderr.startswith(b"crykit: no microphone found; ")
    assert done.stderr.count(b"\n") == 1


def test_without_portaudio_the_package_to_install_is_named(tmp_path: Path, run_cli) -> None:
    # sounddevice raises just this at import where the library is absent.
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = run_cli("devices", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 3
    assert b"libportaudio2" in done.stderr and done.stderr.count(b"\n") == 1
