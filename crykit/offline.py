"""Recordings through the streaming engine: the one path that every offline command takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.events import CryEvent, CryStarted
from crykit.gate import EventGate, GateSettings
from crykit.listener import FrameBlock, Listener
from crykit.manifest import ClipPooling
from crykit.runtime import Runtime

Float32 = NDArray[np.float32]

MIN_POOLED_FRAMES = 8
"""A third of a second: fewer frames would let a single click speak for a whole clip."""


def make_listener(
    bundle: Bundle, runtime: Runtime, settings: GateSettings | None = None
) -> Listener:
    """A listener on the bundle's clock, with its own gate settings unless others are given."""
    manifest = bundle.manifest
    gate = EventGate(settings or manifest.gate, manifest.frame_samples, manifest.sample_rate_hz)
    return Listener(
        runtime,
        gate,
        sample_rate_hz=manifest.sample_rate_hz,
        step_samples=runtime.step_samples,
    )


def events_of(source: Iterable[Float32], listener: Listener) -> Iterator[CryStarted | CryEvent]:
    """Events of a recording as its blocks are read; the listener is reset first.

    Raises:
        InputError: the sound is damaged; what was heard before it has been yielded by then.
    """
    listener.reset()
    try:
        for block in source:
            yield from listener.feed(block)
    except InputError:
        yield from listener.flush()
        raise
    yield from listener.flush()


def frames_of(source: Iterable[Float32], listener: Listener) -> tuple[Float32, Float32]:
    """All frames of a recording: probabilities (frames,), embeddings (frames, size)."""
    blocks: list[FrameBlock] = []
    listener.on_frames = blocks.append
    try:
        for _ in events_of(source, listener):
            pass
    finally:
        listener.on_frames = None
    return (
        np.concatenate([block.cry_probability for block in blocks]),
        np.concatenate([block.embedding for block in blocks]),
    )


def clip_probability(frame_probability: Float32, pooling: ClipPooling) -> float:
    """One probability for a clip: the mean of its highest frames, (frames,) in.

    The `top_fraction` of the frames is taken, `MIN_POOLED_FRAMES` at least where there are so many.
    """
    count = len(frame_probability)
    top = min(count, max(MIN_POOLED_FRAMES, math.ceil(pooling.top_fraction * count)))
    return float(np.sort(frame_probability)[count - top :].mean())


def scene_embedding(frame_embedding: Float32) -> Float32:
    """(frames, size) to (2 * size,): the mean over the frames, then the maximum."""
    return np.concatenate([frame_embedding.mean(axis=0), frame_embedding.max(axis=0)])
