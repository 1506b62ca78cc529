"""What the engine tells the rest of the app: small frozen values, never a widget.

`FrameBlock` (from `crykit.listener`) is a message too, the only one that comes many times a second;
`Mailbox` merges those, and never drops any of the others.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from crykit.errors import CrykitError
from crykit.events import CryEvent, CryStarted
from crykit.listener import FrameBlock


@dataclass(frozen=True, slots=True)
class CryBegan:
    """The gate has opened. `start` is the onset on the wall clock, None where that is unknown."""

    event: CryStarted
    start: datetime | None


@dataclass(frozen=True, slots=True)
class CryEnded:
    """The gate has closed, or the sound ended during a cry."""

    event: CryEvent
    start: datetime | None


@dataclass(frozen=True, slots=True)
class AudioLost:
    """`lost_samples` at the model's rate are missing at `position_s`; `total_samples` so far."""

    position_s: float
    lost_samples: int
    total_samples: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the engine stands, about once a second of its own time.

    `latency_samples` is what the algorithm waits for; `compute_ms` what one step then takes (median
    of the last ones); `real_time_factor` is compute time per time of sound, all told; `behind_s` is
    sound that waits in the ring.
    """

    position_s: float
    lost_samples: int
    latency_samples: int
    compute_ms: float
    real_time_factor: float
    behind_s: float


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """The event log fails, or had to be replaced; `reason` is one line, `state` a status line's."""

    reason: str
    state: str = "log_failing"


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The event log takes what it is given again; `reason` is one line."""

    reason: str
    state: str = "log_recovered"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session heard, told when it is over."""

    source: str
    events: tuple[CryEnded, ...]
    began: tuple[CryBegan, ...]
    heard_s: float
    lost_samples: int
    compute_s: float
    stopped_early: bool
    error: CrykitError | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message: everything is flushed and stored."""

    summary: Summary


Message = (
    FrameBlock
    | CryBegan
    | CryEnded
    | AudioLost
    | Progress
    | StoreTrouble
    | StoreRecovered
    | Finished
)


class Mailbox:
    """Holds messages until the screen next looks.

    A slow screen may miss old frames, of which it could draw only the newest anyway; it never
    misses an event, a loss or the end.
    """

    def __init__(self, max_frame_blocks: int = 512) -> None:
        self._frames: deque[FrameBlock] = deque(maxlen=max_frame_blocks)
        self._progress: Progress | None = None
        self._others: list[Message] = []
        self._lock = threading.Lock()

    def __call__(self, message: Message) -> None:
        """Take a message from any thread."""
        with self._lock:
            if isinstance(message, FrameBlock):
                self._frames.append(message)
            elif isinstance(message, Progress):
                self._progress = message
            else:
                self._others.append(message)

    def take(self) -> list[Message]:
        """Everything since the last call: frames first, `Finished` last."""
        with self._lock:
            taken: list[Message] = [*self._frames]
            if self._progress is not None:
                taken.append(self._progress)
            taken.extend(self._others)
            self._frames.clear()
            self._progress = None
            self._others = []
            return taken
