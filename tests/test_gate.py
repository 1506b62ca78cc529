"""The gate: what it must do on given frames, and what holds for any frames."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crykit.errors import InputError, UsageError
from crykit.gate import SILENCE_DBFS, EventGate, GateClosed, GateOpened, GateSettings

FRAME = 640
RATE_HZ = 16_000
FRAME_MS = 40


def gate_of(**fields: float) -> EventGate:
    plain = {
        "on_threshold": 0.5,
        "off_threshold": 0.3,
        "min_on_ms": 0,
        "min_off_ms": 0,
        "merge_gap_ms": 0,
    }
    return EventGate(GateSettings(**{**plain, **fields}), FRAME, RATE_HZ)


def run(gate: EventGate, frames: list[float], levels: list[float] | None = None):
    found = gate.feed(frames, levels or [-30.0] * len(frames))
    return found + gate.flush()


def spans(found) -> list[tuple[int, int]]:
    """Events as (first frame, frame after the last)."""
    return [
        (e.onset_sample // FRAME, e.offset_sample // FRAME)
        for e in found
        if isinstance(e, GateClosed)
    ]


def test_event_lasts_from_the_rise_over_off_to_the_fall_under_off() -> None:
    found = run(gate_of(min_on_ms=120), [0.1, 0.35, 0.4, 0.9, 0.4, 0.35, 0.1])
    assert spans(found) == [(1, 6)]


def test_onset_walks_back_no_further_than_min_on() -> None:
    found = run(gate_of(min_on_ms=80), [0.4] * 10 + [0.9, 0.1])
    assert spans(found) == [(8, 11)]


def test_a_run_that_never_reaches_on_is_no_event() -> None:
    assert run(gate_of(), [0.49] * 50) == []


def test_min_on_drops_short_runs_and_keeps_those_just_long_enough() -> None:
    assert spans(run(gate_of(min_on_ms=120), [0.9, 0.9, 0.0])) == []
    assert spans(run(gate_of(min_on_ms=120), [0.9, 0.9, 0.9, 0.0])) == [(0, 3)]


def test_min_off_bridges_a_shorter_dip() -> None:
    frames = [0.9] * 3 + [0.0] * 2 + [0.4] * 3 + [0.0] * 3
    assert spans(run(gate_of(min_off_ms=120), frames)) == [(0, 8)]
    assert spans(run(gate_of(min_off_ms=80), frames)) == [(0, 3)]


def test_merge_gap_joins_two_cries_only_if_the_second_is_long_enough() -> None:
    pause = [0.0] * 4
    whole = gate_of(min_on_ms=120, min_off_ms=80, merge_gap_ms=400)
    assert spans(run(whole, [0.9] * 3 + pause + [0.9] * 3 + pause)) == [(0, 10)]
    blip = gate_of(min_on_ms=120, min_off_ms=80, merge_gap_ms=400)
    assert spans(run(blip, [0.9] * 3 + pause + [0.9] * 2 + pause * 4)) == [(0, 3)]


def test_merge_gap_counts_to_the_onset_not_to_its_confirmation() -> None:
    # The second cry begins 4 frames after the first and is confirmed 3 frames later.
    frames = [0.9] * 5 + [0.0] * 4 + [0.9] * 5 + [0.0] * 20
    kept = {"min_on_ms": 200, "min_off_ms": 40}
    assert spans(run(gate_of(merge_gap_ms=200, **kept), frames)) == [(0, 14)]
    assert spans(run(gate_of(merge_gap_ms=160, **kept), frames)) == [(0, 5), (9, 14)]


def test_opened_is_known_as_soon_as_min_on_has_passed() -> None:
    gate = gate_of(min_on_ms=200, min_off_ms=200)
    seen = [bool(gate.feed([0.9], [-30.0])) for _ in range(8)]
    assert seen == [False] * 4 + [True] + [False] * 3
    assert gate.is_open


def test_statistics_cover_the_frames_of_the_event_and_no_others() -> None:
    frames = [0.0, 0.8, 0.6, 1.0, 0.0, 0.0]
    levels = [0.0, -20.0, -20.0, -20.0, 0.0, 0.0]
    (closed,) = (e for e in run(gate_of(), frames, levels) if isinstance(e, GateClosed))
    assert closed.peak_probability == 1.0
    assert closed.mean_probability == pytest.approx(0.8)
    assert closed.level_dbfs == pytest.approx(-20.0)


def test_smoothing_delays_and_forgives_single_frames() -> None:
    assert run(gate_of(smoothing_ms=200), [0.0] * 5 + [1.0] + [0.0] * 20) == []
    (opened, closed) = run(gate_of(smoothing_ms=200), [0.0] * 5 + [1.0] * 20 + [0.0] * 20)
    assert isinstance(opened, GateOpened) and isinstance(closed, GateClosed)
    assert opened.onset_sample > 5 * FRAME
    assert closed.offset_sample > 25 * FRAME


def test_reset_starts_the_clock_where_it_is_told() -> None:
    gate = gate_of()
    gate.feed([0.9] * 3, [-30.0] * 3)
    gate.reset(first_sample=64_000)
    assert not gate.is_open
    assert spans(run(gate, [0.0, 0.9, 0.0])) == [(101, 102)]


def test_a_probability_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="expected a probability, got nan"):
        gate_of().feed([math.nan], [-30.0])


@pytest.mark.parametrize(
    "fields",
    [
        {"off_threshold": 0.6},
        {"on_threshold": 1.5},
        {"off_threshold": 0.0},
        {"min_on_ms": -1.0},
        {"merge_gap_ms": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gate"):
        gate_of(**fields)
    with pytest.raises(UsageError, match="gate"):
        GateSettings().override(**fields)


def test_override_leaves_what_is_not_given() -> None:
    assert GateSettings().override(min_on_ms=70, on_threshold=None) == GateSettings(min_on_ms=70)


durations_ms = st.integers(0, 20).map(lambda n: n * 25.0)
thresholds = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted)
# Stretches of a steady level make events; independent frames would hardly ever last.
stretches = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(1, 15)), max_size=25)
streams = stretches.map(lambda s: [p for p, n in s for _ in range(n)])


@st.composite
def gates(draw: st.DrawFn) -> GateSettings:
    off, on = draw(thresholds)
    return GateSettings(
        on_threshold=on,
        off_threshold=off,
        smoothing_ms=draw(st.sampled_from([0.0, 80.0, 300.0])),
        min_on_ms=draw(durations_ms),
        min_off_ms=draw(durations_ms),
        merge_gap_ms=draw(durations_ms),
    )


@settings(deadline=None, max_examples=300)
@given(gates(), streams)
def test_events_are_ordered_disjoint_long_enough_and_closed_once(
    chosen: GateSettings, frames: list[float]
) -> None:
    gate = EventGate(chosen, FRAME, RATE_HZ)
    found = gate.feed(frames, [-40.0] * len(frames)) + gate.flush()
    assert not gate.is_open
    # Opened, closed, opened, closed, ...: every event opens before it closes, and closes once.
    assert [type(e) for e in found] == [GateOpened, GateClosed] * (len(found) // 2)
    last_offset = None
    for opened, closed in zip(found[::2], found[1::2], strict=True):
        assert isinstance(opened, GateOpened) and isinstance(closed, GateClosed)
        assert opened.onset_sample == closed.onset_sample < opened.detected_sample
        length_ms = (closed.offset_sample - closed.onset_sample) * 1000 / RATE_HZ
        assert length_ms >= max(chosen.min_on_ms, FRAME_MS)
        assert closed.offset_sample <= len(frames) * FRAME
        if last_offset is not None:
            pause_ms = (closed.onset_sample - last_offset) * 1000 / RATE_HZ
            assert pause_ms >= max(chosen.merge_gap_ms, chosen.min_off_ms, FRAME_MS)
        last_offset = closed.offset_sample
        inside = frames[closed.onset_sample // FRAME : closed.offset_sample // FRAME]
        assert closed.peak_probability == max(inside)
        assert closed.mean_probability == pytest.approx(sum(inside) / len(inside))
        assert SILENCE_DBFS <= closed.level_dbfs == pytest.approx(-40.0)


@settings(deadline=None, max_examples=200)
@given(gates(), streams, st.data())
def test_chunking_makes_no_difference(
    chosen: GateSettings, frames: list[float], data: st.DataObject
) -> None:
    whole, cut = EventGate(chosen, FRAME, RATE_HZ), EventGate(chosen, FRAME, RATE_HZ)
    levels = [-60.0 + 30.0 * p for p in frames]
    expected = whole.feed(frames, levels) + whole.flush()
    found: list[GateOpened | GateClosed] = []
    start = 0
    while start < len(frames):
        stop = start + data.draw(st.integers(1, 40))
        found += cut.feed(frames[start:stop], levels[start:stop])
        start = stop
    assert found + cut.flush() == expected
