"""How the bench times: by turns, until medians stand still, and what it says of the times."""

from __future__ import annotations

import numpy as np
import pytest
from bench_report import made_up_row

from crykit_bench.floor import reach_of_floor, sgemm_peak
from crykit_bench.protocol import Row, Timing, interval_share
from crykit_bench.timing import (
    FEWEST_ROUNDS,
    QUICK_ROUNDS,
    TARGET_SHARE,
    Rounds,
    median_interval,
    summarise,
)


def row(row_id: str) -> Row:
    return Row(id=row_id, model="m", runtime="onnx", precision="fp32")


def silent(what: str, share: float) -> None:
    assert 0.0 <= share <= 1.0


class Machine:
    """Answers with made-up times; keeps the order in which rows were asked."""

    def __init__(self, jitter: float) -> None:
        self._rng = np.random.default_rng(3)
        self._jitter = jitter
        self.order: list[str] = []

    def time_block(self, row: Row, steps: int) -> Timing | None:
        self.order.append(row.id)
        level = 1.0 + self._jitter * self._rng.standard_normal()
        return Timing([max(level, 0.01)] * steps, steps * level, 0.16)


def test_a_row_is_summed_up_over_all_its_blocks() -> None:
    summed = row("a")
    quiet = Timing([1.0] * 10, 8.0, 0.16)
    disturbed = Timing([9.0] * 10, 72.0, 0.16)
    summarise(summed, [quiet, disturbed, quiet])
    assert (summed.blocks_timed, summed.steps_timed) == (3, 30)
    assert summed.latency_ms_median == 1.0
    assert summed.latency_ms_p95 == summed.latency_ms_p99 == 9.0
    assert summed.cpu_ms_per_audio_s == pytest.approx(8.0 / 1.6), "the median block, not the mean"
    assert summed.cpu_s_per_audio_hour == pytest.approx(3.6 * 8.0 / 1.6)
    assert summed.real_time_factor == pytest.approx(1.0 / 160.0)
    assert summed.latency_ms_quantiles is not None
    assert summed.latency_ms_quantiles[50] == summed.latency_ms_median


def test_blocks_are_drawn_whole() -> None:
    # Within a block all steps are alike: 400 steps, but 4 independent values.
    blocks = np.repeat([[1.0], [1.1], [1.2], [1.3]], 100, axis=1)
    low, high = median_interval(blocks)
    assert low == 1.0 and high == 1.3
    spread_out = np.random.default_rng(0).permutation(blocks.ravel()).reshape(4, 100)
    narrow = median_interval(spread_out)
    assert narrow[1] - narrow[0] < high - low


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        levels = rng.lognormal(0.0, 0.05, (25, 1)) * rng.lognormal(0.0, 0.02, (25, 20))
        low, high = median_interval(levels)
        held += low <= 1.0 <= high
    assert held >= 85


def test_it_stops_when_the_medians_stand_still() -> None:
    machine, rows = Machine(jitter=0.01), [row("a"), row("b")]
    ended = Rounds(budget_s=60.0).run(rows, machine.time_block, silent)
    assert ended["ended_by"] == "interval"
    assert ended["rounds"] >= FEWEST_ROUNDS
    assert ended["worst_share"] <= TARGET_SHARE
    assert all((interval_share(r) or 1.0) <= TARGET_SHARE for r in rows)


def test_it_stops_when_the_budget_ends_and_says_so() -> None:
    machine, rows = Machine(jitter=0.6), [row("a")]
    ended = Rounds(budget_s=0.05).run(rows, machine.time_block, silent)
    assert ended["ended_by"] == "budget"
    assert ended["worst_share"] > TARGET_SHARE


def test_rows_take_turns_in_an_order_that_the_seed_gives() -> None:
    def order(seed: int) -> list[str]:
        machine, rows = Machine(0.0), [row("a"), row("b"), row("c")]
        Rounds(budget_s=60.0, quick=True, seed=seed).run(rows, machine.time_block, silent)
        return machine.order[6:]  # two blocks a row to warm up

    first = order(1)
    rounds = [first[i : i + 3] for i in range(0, len(first), 3)]
    assert len(rounds) == QUICK_ROUNDS
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1, "shuffled anew each round"
    assert order(1) == first != order(2)


def test_a_row_that_breaks_loses_its_turns_alone() -> None:
    fine, broken = row("fine"), row("broken")
    machine = Machine(0.0)

    def time_block(asked: Row, steps: int) -> Timing | None:
        return None if asked is broken else machine.time_block(asked, steps)

    Rounds(budget_s=60.0, quick=True).run([broken, fine], time_block, silent)
    assert fine.latency_ms_median == 1.0
    assert broken.latency_ms_median is None


def test_the_floor_is_the_work_at_the_machines_peak() -> None:
    timed = made_up_row(
        "onnx-fp32", 1.0, network_macs_per_audio_s=20e6, frontend_macs_per_audio_s=5e6
    )
    timed.latency_ms_median, timed.network_ms_median = 1.0, 0.5
    floor = reach_of_floor(timed, peak=1e10)
    assert floor["network_ms"] == pytest.approx(1000 * 20e6 * 0.16 / 1e10)
    assert floor["network_share"] == pytest.approx(0.64)
    assert floor["whole_share"] == pytest.approx(0.4)
    timed.frontend_macs_per_audio_s = None
    assert set(reach_of_floor(timed, peak=1e10)) == {"network_ms", "network_share"}


def test_the_peak_is_that_of_a_real_cpu() -> None:
    assert 1e8 < sgemm_peak() < 1e13
