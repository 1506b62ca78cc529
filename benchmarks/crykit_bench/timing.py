"""Timing by turns until the medians stand still, and what is said of the times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit_bench.protocol import Row, Timing, interval_share

AUDIO_S_A_ROUND = 6.4
"""40 steps of 160 ms: long against the clock's grain, short against a change of load."""
TARGET_SHARE = 0.03
FEWEST_ROUNDS, QUICK_ROUNDS, MOST_ROUNDS = 12, 4, 400
CHECK_EVERY = 4
_DRAWS = 200

TimeBlock = Callable[[Row, int], Timing | None]
"""Time so many steps of a row; None when its process broke, which ends its turns."""


@dataclass
class Rounds:
    """A B C, C A B ...: a change of the machine's mood falls on every row alike.

    Args:
        budget_s: when to stop although a median still moves.
        quick: stop after a few rounds, whatever the medians do.
        seed: of the order within each round.
    """

    budget_s: float
    quick: bool = False
    seed: int = 0
    blocks: dict[str, list[Timing]] = field(default_factory=dict)

    def run(
        self, rows: Sequence[Row], time_block: TimeBlock, tell: Callable[[str, float], None]
    ) -> dict[str, Any]:
        """Fill `blocks` by row id and sum the rows up; returns how it ended.

        Args:
            tell: called each round with what to say and the share that is done.
        """
        began, rng = time.monotonic(), np.random.default_rng(self.seed)
        steps = {row.id: self._warm_up(row, time_block) for row in rows}
        most = QUICK_ROUNDS if self.quick else MOST_ROUNDS
        ended_by, number = "rounds", 0
        for number in range(1, most + 1):
            for index in rng.permutation(len(rows)):
                row = rows[index]
                if steps[row.id] and (timing := time_block(row, steps[row.id])):
                    self.blocks.setdefault(row.id, []).append(timing)
            spent_s = time.monotonic() - began
            checked = number >= FEWEST_ROUNDS and number % CHECK_EVERY == 0
            worst = self._sum_up(rows) if checked else None
            tell(_words(number, worst), min(1.0, max(spent_s / self.budget_s, number / most)))
            if worst is not None and worst <= TARGET_SHARE:
                ended_by = "interval"
                break
            if number >= QUICK_ROUNDS and spent_s >= self.budget_s:
                ended_by = "budget"
                break
        return {
            "rounds": number,
            "ended_by": ended_by,
            "target_share": TARGET_SHARE,
            "worst_share": self._sum_up(rows),
            "budget_s": self.budget_s,
            "spent_s": round(time.monotonic() - began, 1),
        }

    def _warm_up(self, row: Row, time_block: TimeBlock) -> int:
        """Steps of a block of this row; 0 if its process broke."""
        first = time_block(row, 2)
        if first is None:
            return 0
        steps = max(1, round(AUDIO_S_A_ROUND / first.step_s))
        return steps if time_block(row, -(-steps // 2)) else 0

    def _sum_up(self, rows: Sequence[Row]) -> float | None:
        """Summarise all rows; the widest interval among them, as a share of its median."""
        timed = [row for row in rows if row.status == "ok" and self.blocks.get(row.id)]
        for row in timed:
            summarise(row, self.blocks[row.id])
        return max(
            (share for row in timed if (share := interval_share(row)) is not None), default=None
        )


def _words(number: int, worst: float | None) -> str:
    return f"timing: round {number}" + ("" if worst is None else f", medians within {worst:.1%}")


def summarise(row: Row, blocks: Sequence[Timing]) -> None:
    """Fill in a row's times.

    Latency is over all steps, CPU a second of audio the median over blocks; both intervals come
    from drawing whole blocks with replacement, since the steps of a block share its circumstances.
    """
    step_s = blocks[0].step_s
    wall_ms = np.array([block.wall_ms for block in blocks])  # (blocks, steps)
    cpu_ms = np.array([block.cpu_ms / (len(block.wall_ms) * step_s) for block in blocks])
    row.step_ms = 1000.0 * step_s
    row.blocks_timed, row.steps_timed = len(blocks), wall_ms.size
    row.latency_ms_quantiles = [round(float(q), 5) for q in np.percentile(wall_ms, range(101))]
    row.latency_ms_median = float(np.median(wall_ms))
    row.latency_ms_p95, row.latency_ms_p99 = map(float, np.percentile(wall_ms, [95, 99]))
    row.latency_ms_interval = median_interval(wall_ms)
    row.cpu_ms_per_audio_s = float(np.median(cpu_ms))
    row.cpu_ms_per_audio_s_interval = median_interval(cpu_ms[:, np.newaxis])
    row.cpu_s_per_audio_hour = 3.6 * row.cpu_ms_per_audio_s
    row.real_time_factor = row.latency_ms_median / row.step_ms


def median_interval(blocks: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median of (blocks, steps), blocks drawn whole."""
    drawn = np.random.default_rng(0).integers(0, len(blocks), (_DRAWS, len(blocks)))
    medians = [float(np.median(blocks[draw])) for draw in drawn]
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)
