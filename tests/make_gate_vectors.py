"""Write `export/kits/gate_vectors.json`: what the Python gate makes of chosen frames.

The gate of every phone kit must make the same of them. `python tests/make_gate_vectors.py` writes
the file anew; only a change of the gate's meaning should need that.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from crykit.files import write_aside
from crykit.gate import EventGate, GateClosed, GateOpened, GateSettings

PATH = Path(__file__).parents[1] / "export" / "kits" / "gate_vectors.json"
PER_PATTERN = 16
"""Vectors that show a pattern, for each pattern."""

_THRESHOLDS = [0.2, 0.3, 0.35, 0.5, 0.6, 0.75]
_DURATIONS_MS = [0.0, 40.0, 70.0, 80.0, 120.0, 200.0, 300.0, 400.0, 560.0]


class Frames(NamedTuple):
    """A gate's settings and all that it is fed."""

    settings: GateSettings
    frame_samples: int
    sample_rate_hz: int
    first_sample: int
    probabilities: list[float]
    levels_dbfs: list[float]

    def found(self, **changes: float) -> list[GateOpened | GateClosed]:
        """What the gate finds, under its own settings or with some changed."""
        chosen = msgspec.structs.replace(self.settings, **changes)
        gate = EventGate(chosen, self.frame_samples, self.sample_rate_hz, self.first_sample)
        return gate.feed(self.probabilities, self.levels_dbfs) + gate.flush()

    def smoothed(self) -> list[float]:
        """The track that the thresholds are held against."""
        tau, values = self.settings.smoothing_ms, list[float]()
        frame_ms = 1000.0 * self.frame_samples / self.sample_rate_hz
        follow = 1.0 - math.exp(-frame_ms / tau) if tau > 0 else 1.0
        for probability in self.probabilities:
            last = values[-1] if values else probability
            values.append(last + follow * (probability - last))
        return values


@st.composite
def gates(draw: st.DrawFn) -> GateSettings:
    off, on = sorted(draw(st.tuples(*[st.sampled_from(_THRESHOLDS)] * 2)))
    return GateSettings(
        on_threshold=on,
        off_threshold=off,
        smoothing_ms=draw(st.sampled_from([0.0, 0.0, 80.0, 250.0])),
        min_on_ms=draw(st.sampled_from(_DURATIONS_MS)),
        min_off_ms=draw(st.sampled_from(_DURATIONS_MS)),
        merge_gap_ms=draw(st.sampled_from([*_DURATIONS_MS, 1000.0])),
    )


@st.composite
def cases(draw: st.DrawFn) -> Frames:
    """Stretches above, between, at and under the thresholds, with ragged tops."""
    chosen = draw(gates())
    exact = st.sampled_from([chosen.on_threshold, chosen.off_threshold, 0.0, 1.0])
    level = exact | st.integers(0, 1000).map(lambda n: n / 1000)
    loudness = st.sampled_from([-100.0, 0.0]) | st.integers(-700, -100).map(lambda n: n / 10)
    stretch = st.tuples(level, loudness, st.integers(1, 12))
    stretches = draw(st.lists(stretch, min_size=1, max_size=12) | st.lists(stretch, min_size=10))
    frame, rate = draw(st.sampled_from([(640, 16_000)] * 3 + [(320, 16_000), (256, 8_000)]))
    return Frames(
        chosen,
        frame,
        rate,
        draw(st.sampled_from([0, 0, frame * 25, 1_234_567])),
        [p for p, _, n in stretches for _ in range(n)],
        [db for _, db, n in stretches for _ in range(n)],
    )


def counts(found: list[GateOpened | GateClosed]) -> tuple[int, int]:
    """Events opened and closed."""
    opened = sum(isinstance(change, GateOpened) for change in found)
    return opened, len(found) - opened


def patterns(case: Frames) -> list[str]:
    """What a case is about, each told by what the gate does without it."""
    chosen, found = case.settings, case.found()
    closed = [change for change in found if isinstance(change, GateClosed)]
    events, frame, first = len(closed), case.frame_samples, case.first_sample
    track = case.smoothed()
    onsets = [(event.onset_sample - first) // frame for event in closed]
    pauses = [b.onset_sample - a.offset_sample for a, b in zip(closed, closed[1:], strict=False)]
    merge_samples = chosen.merge_gap_ms * case.sample_rate_hz / 1000.0
    shown = {
        "none": not events,
        "one": events == 1,
        "several": events > 1,
        "many": events > 2,
        "merged": events < counts(case.found(merge_gap_ms=0.0))[1],
        "merged twice": events + 1 < counts(case.found(merge_gap_ms=0.0))[1],
        "dropped": events < counts(case.found(min_on_ms=0.0))[1],
        "bridged": counts(case.found(merge_gap_ms=0.0))
        < counts(case.found(min_off_ms=0.0, merge_gap_ms=0.0)),
        "smoothed": found != case.found(smoothing_ms=0.0),
        "walked back": any(track[onset] < chosen.on_threshold for onset in onsets),
        "walked back no further": any(
            onset > 0 and chosen.off_threshold <= track[onset - 1] < chosen.on_threshold
            for onset in onsets
        ),
        "pause of the merge gap": merge_samples > 0 and merge_samples in pauses,
        "length of min on": any(
            event.offset_sample - event.onset_sample
            == chosen.min_on_ms * case.sample_rate_hz / 1000.0
            for event in closed
        ),
        "at a threshold": bool({chosen.on_threshold, chosen.off_threshold} & set(track)),
        "equal thresholds": events > 0 and chosen.on_threshold == chosen.off_threshold,
        "later clock": events > 0 and first > 0,
        "silent event": any(event.level_dbfs < -99.0 for event in closed),
        "open at the end": bool(closed)
        and closed[-1].offset_sample == first + frame * len(case.probabilities),
    }
    return [name for name, is_shown in shown.items() if is_shown]


def is_certain(case: Frames) -> bool:
    """Whether the last digit of another language's `exp` could not change an event."""
    if case.settings.smoothing_ms == 0.0:
        return True
    bars = (case.settings.on_threshold, case.settings.off_threshold)
    return all(abs(value - bar) > 1e-6 for value in case.smoothed() for bar in bars)


def drawn_cases(tries: int = 3000) -> list[Frames]:
    """Cases as hypothesis draws them; the same ones every time."""
    drawn: list[Frames] = []

    @seed(20_250_101)
    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(cases())
    def collect(case: Frames) -> None:
        if is_certain(case) and case not in drawn and len(case.probabilities) <= 160:
            drawn.append(case)

    collect()
    return drawn


def chosen_cases() -> list[Frames]:
    """Of the drawn cases, those of many patterns first, until each is shown often enough."""
    so_far: Counter[str] = Counter()
    chosen = [Frames(GateSettings(), 640, 16_000, 0, [], [])]
    for case in sorted(drawn_cases(), key=lambda case: -len(patterns(case))):
        shown = patterns(case)
        if any(so_far[name] < PER_PATTERN for name in shown):
            chosen.append(case)
            so_far.update(shown)
    return chosen


def as_json(case: Frames) -> dict[str, Any]:
    """One vector. `shows` is for whoever reads a failure; a port ignores it."""
    return {
        "shows": patterns(case),
        "settings": msgspec.structs.asdict(case.settings),
        **{name: value for name, value in case._asdict().items() if name != "settings"},
        "found": [
            {
                "type": "opened" if isinstance(change, GateOpened) else "closed",
                **msgspec.to_builtins(change),
            }
            for change in case.found()
        ],
    }


def from_json(vector: dict[str, Any]) -> Frames:
    """The case of a vector."""
    rest = {name: vector[name] for name in Frames._fields if name != "settings"}
    return Frames(settings=GateSettings(**vector["settings"]), **rest)


def main() -> None:
    lines = [json.dumps(as_json(case), separators=(",", ":")) for case in chosen_cases()]
    with write_aside(PATH) as aside:
        aside.write(('{"format_version":1,"vectors":[\n' + ",\n".join(lines) + "\n]}\n").encode())
    print(f"{len(lines)} vectors, {PATH.stat().st_size // 1000} kB: {PATH}")


if __name__ == "__main__":
    main()
