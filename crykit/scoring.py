"""How a detector is measured: one definition of a hit, a miss and a false alarm, one of AUC.

Training chooses thresholds with it and the benchmark reports with it, so both mean the same thing.

Events. Reference cries closer than `merge_gap_s` are one bout (a caregiver hears one), and the
estimate is merged alike. A bout is found when estimates cover at least half of it. A false alarm is
an estimated event that overlaps no reference bout at all. Time F1 compares seconds, not events.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crykit.errors import InputError

Span = tuple[float, float]
"""Onset and offset in seconds."""


@dataclass(frozen=True)
class EventScore:
    """Counts and seconds of one recording, or of several added up by `total`."""

    ref: int
    hit: int
    false_alarms: int
    duration_s: float
    ref_s: float
    est_s: float
    overlap_s: float
    delays_s: tuple[float, ...]

    @property
    def recall(self) -> float | None:
        """Share of reference bouts found; None where there are none."""
        return self.hit / self.ref if self.ref else None

    @property
    def false_alarms_per_hour(self) -> float | None:
        return self.false_alarms / (self.duration_s / 3600.0) if self.duration_s else None

    @property
    def time_precision(self) -> float:
        return self.overlap_s / self.est_s if self.est_s else 0.0

    @property
    def time_recall(self) -> float:
        return self.overlap_s / self.ref_s if self.ref_s else 0.0

    @property
    def time_f1(self) -> float:
        both = self.time_precision + self.time_recall
        return 2.0 * self.time_precision * self.time_recall / both if both else 0.0

    @property
    def delay_median_s(self) -> float | None:
        """Upper median of onset delays of the bouts that were found; None where none was."""
        return sorted(self.delays_s)[len(self.delays_s) // 2] if self.delays_s else None


def merge_spans(spans: Iterable[Sequence[float]], gap_s: float) -> list[Span]:
    """Sorted spans, those no more than `gap_s` apart joined."""
    merged: list[Span] = []
    for onset, offset in sorted((float(s[0]), float(s[1])) for s in spans):
        if merged and onset - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], offset))
        else:
            merged.append((onset, offset))
    return merged


def read_reference(csv_path: str | Path, merge_gap_s: float = 3.0) -> list[Span]:
    """Merged cries of a stream's truth: a CSV with columns `onset_s`, `offset_s` and `event`.

    Raises:
        InputError: a column is missing or a time is no number.
    """
    with open(csv_path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"onset_s", "offset_s", "event"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{csv_path}: the truth lacks the column {', '.join(sorted(missing))}")
        try:
            cries = [
                (float(row["onset_s"]), float(row["offset_s"]))
                for row in reader
                if row["event"] == "cry"
            ]
        except (TypeError, ValueError) as error:
            raise InputError(f"{csv_path}: onset_s and offset_s must be seconds: {error}") from None
    return merge_spans(cries, merge_gap_s)


def _overlap_s(a: Span, b: Span) -> float:
    return min(a[1], b[1]) - max(a[0], b[0])


def score_events(
    ref: Sequence[Span],
    est: Iterable[Sequence[float]],
    duration_s: float,
    merge_gap_s: float = 3.0,
) -> EventScore:
    """Score estimated spans against merged reference spans (`read_reference`), all in seconds."""
    estimates = merge_spans(est, merge_gap_s)
    delays: list[float] = []
    for bout in ref:
        over = [e for e in estimates if _overlap_s(bout, e) > 0]
        if sum(_overlap_s(bout, e) for e in over) >= 0.5 * (bout[1] - bout[0]):
            # A bout of no length needs no estimate to be half covered; it then has no delay.
            delays.append(max(0.0, min((e[0] for e in over), default=bout[0]) - bout[0]))
    alarms = sum(1 for e in estimates if not any(_overlap_s(bout, e) > 0 for bout in ref))
    return EventScore(
        ref=len(ref),
        hit=len(delays),
        false_alarms=alarms,
        duration_s=duration_s,
        ref_s=sum(b - a for a, b in ref),
        est_s=sum(b - a for a, b in estimates),
        overlap_s=sum(max(0.0, _overlap_s(bout, e)) for bout in ref for e in estimates),
        delays_s=tuple(delays),
    )


def total(scores: Iterable[EventScore]) -> EventScore:
    """Add recordings up: counts and seconds are summed, delays pooled."""
    rows = list(scores)
    return EventScore(
        ref=sum(r.ref for r in rows),
        hit=sum(r.hit for r in rows),
        false_alarms=sum(r.false_alarms for r in rows),
        duration_s=sum(r.duration_s for r in rows),
        ref_s=sum(r.ref_s for r in rows),
        est_s=sum(r.est_s for r in rows),
        overlap_s=sum(r.overlap_s for r in rows),
        delays_s=tuple(d for r in rows for d in r.delays_s),
    )


def _average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve by the Mann-Whitney statistic; ties count half.

    Args:
        labels: truthy where positive, (n,).
        scores: higher means more positive, (n,).

    Raises:
        InputError: one of the two classes is absent, or a score is not finite.
    """
    positive = np.asarray(labels).astype(bool)
    values = np.asarray(scores, dtype=np.float64)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if positive.shape != values.shape or not np.isfinite(values).all():
        raise InputError("AUC needs one finite score for each label")
    if n_positive == 0 or n_negative == 0:
        raise InputError(
            f"AUC needs both classes; got {n_positive} positive, {n_negative} negative"
        )
    rank_sum = float(_average_ranks(values)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


def group_bootstrap_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str],
    n: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float, int]:
    """AUC with its 95% percentile interval over resampled groups.

    Whole groups (babies, uploaders, recordings) are drawn with replacement: clips of one group are
    no independent evidence. Groups with a positive and groups without are drawn apart, so that
    every draw has both classes.

    Returns:
        (value, low, high, number of groups)
    """
    positive = np.asarray(labels).astype(bool)
    values = np.asarray(scores, dtype=np.float64)
    value = auc(positive, values)
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    clips: list[NDArray[np.intp]] = [np.asarray(m, dtype=np.intp) for m in members.values()]
    strata = [
        [c for c in clips if positive[c].any()],
        [c for c in clips if not positive[c].any()],
    ]
    rng = np.random.default_rng(seed)
    draws: list[float] = []
    for _ in range(n):
        drawn: list[NDArray[np.intp]] = [
            s[i] for s in strata if s for i in rng.integers(0, len(s), len(s))
        ]
        chosen = np.concatenate(drawn)
        if positive[chosen].all():  # possible only where every group has a positive
            continue
        draws.append(auc(positive[chosen], values[chosen]))
    low, high = np.quantile(draws, [0.025, 0.975]) if draws else (math.nan, math.nan)
    return value, float(low), float(high), len(clips)


def _poisson_cdf(count: int, mean: float) -> float:
    """P(X <= count) for X ~ Poisson(mean)."""
    if mean == 0.0:
        return 1.0
    log_mean = math.log(mean)
    return math.fsum(math.exp(k * log_mean - mean - math.lgamma(k + 1)) for k in range(count + 1))


def poisson_upper_bound(count: int, hours: float, level: float = 0.95) -> float:
    """Exact one-sided upper bound on a rate an hour, after `count` events in `hours`.

    The rate at which so few events, or fewer, would be seen with probability `1 - level`
    (Garwood 1936). Zero events in 10 h bound the rate at 0.30 an hour.
    """
    if hours <= 0 or count < 0:
        raise InputError(f"a rate needs hours > 0 and count >= 0; got {hours} h and {count}")
    low, high = float(count), count + 10.0 * math.sqrt(count + 1.0) + 10.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if _poisson_cdf(count, middle) > 1.0 - level:
            low = middle
        else:
            high = middle
    return high / hours
